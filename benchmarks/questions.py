"""What a further question about the same image costs, beside the first, on the built-in model and a CPU.

    python benchmarks/questions.py [--rounds 5]

The first question has the image encoded and prefilled; the second is another yes/no question on the same reading. Only
the network's work is measured: the image was opened and cut into crops before. Target: at most 0.15 of the first.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]  # measure this checkout, whatever is installed

QUESTIONS = ("Is there necrosis?", "In this picture, does the tissue look like a carcinoma of the breast?")
SIDE_PX = 1024


def measure(model: Any, pixels: Any, prompts: list[list[int]]) -> list[float]:
    """Seconds of each question in turn, on a reading that begins with the first."""
    reading = model.reading(pixels)
    seconds = []
    for prompt in prompts:
        started = time.perf_counter()
        reading.logits(prompt)
        seconds.append(time.perf_counter() - started)
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds

    from PIL import Image

    from dragonfly_cli.engine.checkpoints import find_checkpoint
    from dragonfly_cli.engine.model import load_model

    model = load_model(find_checkpoint("demo"), "cpu")
    pixels = model.processor.pixels(Image.effect_noise((SIDE_PX, SIDE_PX), 90).convert("RGB"))
    prompts = [model.processor.text_ids(model.processor.prompt(question)) for question in QUESTIONS]
    measure(model, pixels, prompts)  # what is set up at the first use
    first, second = (
        statistics.median(each) for each in zip(*(measure(model, pixels, prompts) for _ in range(rounds)), strict=True)
    )
    print(f"prompts of {len(prompts[0])} and {len(prompts[1])} tokens, {rounds} rounds")
    print(f"first {first * 1e3:.1f} ms, second {second * 1e3:.1f} ms: ratio {second / first:.3f}")


if __name__ == "__main__":
    main()
