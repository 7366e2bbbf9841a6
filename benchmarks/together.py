"""Whether it would pay to compute things together that are now computed one after the other, and change nothing.

    python benchmarks/together.py crops     [--rounds 5]  several images' crops in one pass of the vision encoder
    python benchmarks/together.py questions [--rounds 5]  several questions about an image as one left-padded batch

Ratios of time on the processor, which other programs do not count into, with the built-in model in float32; and
whether what comes out is the same to the last bit, which a row needs in order not to depend on its neighbours.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]  # measure this checkout, whatever is installed

IMAGES = 4
QUESTIONS = (
    "Is there a tumour?",
    "Is there necrosis in this picture?",
    "Is it an X-ray?",
    "What kind of image is this?",
    "Is there any sign of a pleural effusion on the left side?",
    "Is it normal?",
    "Which organ is shown?",
    "Is there inflammation?",
)


def busy_seconds(works: dict[Any, Callable[[], object]], rounds: int) -> dict[Any, float]:
    """The median of each, taken in turn."""
    taken: dict[Any, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = time.process_time()
            work()
            taken[name].append(time.process_time() - started)
    return {name: statistics.median(each) for name, each in taken.items()}


def compare_crops(model: Any, rounds: int) -> None:
    import torch

    an_image = model.processor.plan((1024, 768)).crop_count
    side = model.processor.crop_side_px
    crops = torch.randn((IMAGES * an_image, 3, side, side), generator=torch.Generator().manual_seed(0))

    def encoded(chunk: int) -> Any:
        return torch.cat([model.network.encode_crops(part[None])[0] for part in crops.split(chunk)])

    chunks = (1, 8, an_image, 2 * an_image, IMAGES * an_image)
    alone = encoded(an_image)
    same = {chunk: torch.equal(encoded(chunk), alone) for chunk in chunks}
    taken = busy_seconds({chunk: partial(encoded, chunk) for chunk in chunks}, rounds)
    for chunk, seconds in taken.items():
        ratio = seconds / taken[an_image]
        print(f"{chunk} crops at a time: {ratio:.2f} of the time of an image's {an_image}, same bits: {same[chunk]}")


def compare_questions(model: Any, rounds: int) -> None:
    import torch
    from PIL import Image

    reading = model.reading(model.processor.pixels(Image.effect_noise((1024, 768), 90).convert("RGB")))
    prompts = [model.processor.text_ids(model.processor.prompt(question)) for question in QUESTIONS]
    reading.logits(prompts[0])

    def one_by_one() -> Any:
        return torch.stack([reading.logits(prompt)[-1] for prompt in prompts])

    def together() -> Any:
        return left_padded(model, reading, prompts)

    apart = (one_by_one() - together()).abs().max()
    few = left_padded(model, reading, prompts[:2])
    print(f"logits differ by {apart:.1e}; beside fewer neighbours by {(few - together()[:2]).abs().max():.1e}")
    taken = busy_seconds({"one": one_by_one, "all": together}, rounds)
    print(
        f"{len(prompts)} questions in one batch: {taken['all'] / taken['one']:.2f} of the time of one after the other"
    )


def left_padded(model: Any, reading: Any, prompts: list[list[int]]) -> Any:
    """Logits [prompts, vocabulary] that follow each prompt, behind copies of the image's cache."""
    import torch
    from transformers import DynamicCache

    network, image = model.network, len(model.processor.image_block())
    cache = DynamicCache(config=network.config.text_config)
    for number, layer in enumerate(reading._cache.layers):
        kept = [each[:, :, :image].expand(len(prompts), -1, -1, -1) for each in (layer.keys, layer.values)]
        cache.update(*kept, number)
    longest = max(map(len, prompts))
    ids = torch.tensor([[network.config.bos_token_id] * (longest - len(each)) + each for each in prompts])
    is_read = torch.tensor([[1] * image + [0] * (longest - len(each)) + [1] * len(each) for each in prompts])
    places = (is_read.cumsum(dim=1) - 1)[:, image:]
    return network(
        input_ids=ids, attention_mask=is_read, position_ids=places, cache=cache, use_cache=True, logits_to_keep=1
    ).logits[:, -1]


COMPARISONS = {"crops": compare_crops, "questions": compare_questions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    import torch

    from dragonfly_cli.engine.checkpoints import find_checkpoint
    from dragonfly_cli.engine.model import load_model

    print(f"threads: {torch.get_num_threads()}")
    with torch.inference_mode():
        COMPARISONS[options.what](load_model(find_checkpoint("demo"), "cpu"), options.rounds)


if __name__ == "__main__":
    main()
