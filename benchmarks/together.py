"""Whether it pays to compute things together, and changes nothing.

    python benchmarks/together.py captions  [--rounds 5]  answers as they are written, several in one pass
    python benchmarks/together.py crops     [--rounds 5]  several images' crops in one pass of the vision encoder
    python benchmarks/together.py questions [--rounds 5]  several questions about an image as one left-padded batch

Questions are computed one after the other by the program, and so are images' crops on a CPU. There, ratios of time on
the processor, which other programs do not count into, with the model in float32; and whether what comes out is the
same, to the last bit where a row must not depend on its neighbours. ``captions`` and ``crops`` take a GPU where there
is one (``--device``), and any ``--model``.
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
CAPTIONS = 8
CAPTION_TOKENS = 64
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


def busy_seconds(
    works: dict[Any, Callable[[], object]], rounds: int, clock: Callable[[], float] = time.process_time
) -> dict[Any, float]:
    """The median of each, taken in turn."""
    taken: dict[Any, list[float]] = {name: [] for name in works}
    for _ in range(rounds):
        for name, work in works.items():
            started = clock()
            work()
            taken[name].append(clock() - started)
    return {name: statistics.median(each) for name, each in taken.items()}


def clock_of(model: Any) -> Callable[[], float]:
    """What a GPU does takes none of the processor's time."""
    return time.process_time if model.device.type == "cpu" else time.perf_counter


class Endless:
    """A grammar under which no answer ends, so that all are as long as they may be."""

    def __init__(self, stop: list[int]) -> None:
        self._stop = stop

    def restrict(self, logits: Any) -> Any:
        going_on = logits.clone()
        going_on[self._stop] = float("-inf")
        return going_on

    def accept(self, token: int) -> None:
        """All are alike."""


def compare_captions(model: Any, rounds: int) -> None:
    from PIL import Image

    from dragonfly_cli.engine.questions import CAPTION_INSTRUCTION
    from dragonfly_med.generation import Sampling, decode
    from dragonfly_med.joint import Start, decode_together

    sampling = Sampling(CAPTION_TOKENS)
    ids = model.processor.text_ids(model.processor.prompt(CAPTION_INSTRUCTION))
    pictures = [Image.effect_noise((300 + 50 * number, 400), 30 * number).convert("RGB") for number in range(CAPTIONS)]
    readings = [model.reading(model.processor.pixels(picture)) for picture in pictures]
    endless = partial(Endless, model.network.config.stop_token_ids)
    starts = [Start(reading.prefilled(ids), endless) for reading in readings]

    def one_by_one() -> list[list[int]]:
        return [list(decode(reading, ids, sampling, endless())) for reading in readings]

    def together() -> list[list[int]]:
        return decode_together(model.network, starts, sampling)

    same = one_by_one() == together()
    taken = busy_seconds({"one": one_by_one, "all": together}, rounds, clock_of(model))
    one, every = (CAPTIONS * CAPTION_TOKENS / taken[name] for name in ("one", "all"))
    print(f"{CAPTIONS} captions of {CAPTION_TOKENS} tokens, {model.identity.id} on {model.device}: ", end="")
    print(f"{one:.0f} tokens/s one by one, {every:.0f} together, ratio {every / one:.2f}; same ids: {same}")


def compare_crops(model: Any, rounds: int) -> None:
    import torch

    an_image = model.processor.plan((1024, 768)).crop_count
    side = model.processor.crop_side_px
    crops = torch.randn((IMAGES * an_image, 3, side, side), generator=torch.Generator().manual_seed(0))
    crops = crops.to(model.device, model.network.dtype)

    def encoded(chunk: int) -> Any:
        features = torch.cat([model.network.image_encoder(part) for part in crops.split(chunk)])
        return features.cpu()  # waits for it

    chunks = (1, 8, an_image, 2 * an_image, IMAGES * an_image)
    alone = encoded(an_image)
    same = {chunk: torch.equal(encoded(chunk), alone) for chunk in chunks}
    taken = busy_seconds({chunk: partial(encoded, chunk) for chunk in chunks}, rounds, clock_of(model))
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


COMPARISONS = {"captions": compare_captions, "crops": compare_crops, "questions": compare_questions}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(COMPARISONS))
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--device", help="auto for captions and crops, else cpu")
    options = parser.parse_args()
    import torch

    from dragonfly_cli.engine.checkpoints import find_checkpoint
    from dragonfly_cli.engine.model import load_model

    print(f"threads: {torch.get_num_threads()}")
    with torch.inference_mode():
        device = options.device or ("cpu" if options.what == "questions" else "auto")
        COMPARISONS[options.what](load_model(find_checkpoint(options.model), device), options.rounds)


if __name__ == "__main__":
    main()
