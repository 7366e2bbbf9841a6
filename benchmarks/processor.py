"""How fast one picture becomes pixels, beside transformers' CLIP image processor called on every crop.

    python benchmarks/processor.py [--runs 9] [--size 1024x768]

The per-crop path draws the three canvases with plain Pillow, cuts them into Pillow crops and gives each to
``CLIPImageProcessorPil``; ours is ``DragonflyProcessor.pixels`` without the object around it. The pixels must be equal
before anything is timed. Prints the ratios of the medians of alternating runs, in elapsed and in processor time (ours
works in several threads, which a busy machine hides); needs no checkpoint.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
from PIL import Image
from transformers import CLIPImageProcessorPil

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from dragonfly_med.crops import cut_crops, draw_canvases, normalize
from dragonfly_med.views import Architecture, ViewPlan, plan_views

SIDES_PX: dict[Architecture, int] = {"dragonfly-v1": 224, "dragonfly-v2": 336}


def in_one_array(image: Image.Image, plan: ViewPlan) -> np.ndarray:
    return normalize(cut_crops(draw_canvases(image, plan), plan))


def plainly_stretched(image: Image.Image, size_wh: tuple[int, int]) -> Image.Image:
    wide = image.resize((size_wh[0], image.height), Image.Resampling.BICUBIC)
    return wide.resize(size_wh, Image.Resampling.BICUBIC)


def crop_by_crop(image: Image.Image, plan: ViewPlan, clip: CLIPImageProcessorPil) -> np.ndarray:
    side = plan.side_px
    pixels = []
    canvases = [plainly_stretched(image, size_wh) for size_wh in plan.canvas_sizes]
    for canvas, (columns, rows) in zip(canvases, plan.grids, strict=True):
        for row in range(rows):
            for column in range(columns):
                x, y = column * side, row * side
                crop = canvas.crop((x, y, x + side, y + side))
                pixels.append(clip(crop, return_tensors="np")["pixel_values"][0])
    return np.stack(pixels)


def milliseconds(work: Callable[[], object]) -> tuple[float, float]:
    """Elapsed time, and processor time over all threads."""
    elapsed, busy = time.perf_counter(), time.process_time()
    work()
    return (time.perf_counter() - elapsed) * 1000, (time.process_time() - busy) * 1000


def medians(times: list[tuple[float, float]]) -> tuple[float, float]:
    elapsed, busy = zip(*times, strict=True)
    return statistics.median(elapsed), statistics.median(busy)


def compare(architecture: Architecture, size_wh: tuple[int, int], runs: int) -> bool:
    """Times both paths in turn and prints one line; False where the pixels differ."""
    side = SIDES_PX[architecture]
    clip = CLIPImageProcessorPil(size={"shortest_edge": side}, crop_size={"height": side, "width": side})
    levels = np.random.default_rng(0).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    image = Image.fromarray(levels)
    plan = plan_views(size_wh, side, architecture)

    difference = float(np.abs(in_one_array(image, plan) - crop_by_crop(image, plan, clip)).max())
    ours, theirs, resizing = [], [], []
    for _ in range(runs):
        ours.append(milliseconds(lambda: in_one_array(image, plan)))
        theirs.append(milliseconds(lambda: crop_by_crop(image, plan, clip)))
        resizing.append(milliseconds(lambda: [plainly_stretched(image, size) for size in plan.canvas_sizes]))
    (our_ms, our_cpu_ms), (their_ms, their_cpu_ms), (resizing_ms, _) = map(medians, (ours, theirs, resizing))
    print(
        f"{architecture}, {plan.crop_count} crops: {our_ms:.0f} ms, crop by crop {their_ms:.0f} ms: "
        f"{their_ms / our_ms:.1f} times as fast, with 1/{their_cpu_ms / our_cpu_ms:.1f} of the processor time; "
        f"plain resizing alone takes {resizing_ms:.0f} ms; largest difference {difference}"
    )
    return difference == 0


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--runs", type=int, default=9)
    parser.add_argument("--size", default="1024x768", help="width x height of the picture in pixels")
    options = parser.parse_args()
    width, height = map(int, options.size.split("x"))
    equal = [compare(architecture, (width, height), options.runs) for architecture in SIDES_PX]
    return 0 if all(equal) else 1


if __name__ == "__main__":
    sys.exit(main())
