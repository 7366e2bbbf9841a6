"""How much an overview of a large slide costs: our reader against OpenSlide's best level, and level 0 in full.

    python benchmarks/slide_overview.py [--side 16384] [--small-side 4096] [--rounds 1] [--without-level-0]

Writes square pyramid slides (JPEG tiles) to a temporary folder, one whose levels shrink by 2 and one whose levels
shrink by 4 as Aperio's do, then makes the model's three views of all of it (224 x 224, 448 x 448, 1344 x 896), each
way in a process of its own. The coarser the steps, the more pixels the largest view has to read.
"Best level" is what a careful user of OpenSlide would do: for each view the best level as one region, then Pillow; its
pixels are compared with the reader's. The reader is also run on a slide of --small-side, and its memory compared.
Seconds are elapsed ones; those of all cores together are given beside them, because they hardly depend on what else
runs. Memory is the peak resident size of that process, given raw and above what the process held after its imports.
Prints one line per figure; --without-level-0 leaves out what takes 8 GB of memory at a side of 32768.
Needs tifffile and imagecodecs (the ``test`` extra).
"""

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed

VIEW_SIZES = ((224, 224), (448, 448), (1344, 896))
TILE_PX = 256
PYRAMIDS = {2: (1, 2, 4, 8, 16, 32, 64), 4: (1, 4, 16)}


def write_slide(path: Path, side_px: int, factors: tuple[int, ...]) -> None:
    """Textured tiles, streamed, so that writing needs no more memory than reading."""
    import numpy as np
    import tifffile

    texture = np.random.default_rng(0).integers(0, 40, (TILE_PX, TILE_PX, 3))
    shades = [np.clip(texture + np.array([215 - 9 * i, 120 + 7 * i, 190]), 0, 255).astype(np.uint8) for i in range(12)]

    def tiles(columns: int) -> Iterator[np.ndarray]:
        for index in range(columns * columns):
            yield shades[(index // columns + index % columns) % len(shades)]

    text = f"Aperio Image Library v12.0.0\r\n{side_px}x{side_px} [0,0 {side_px}x{side_px}] (256x256) JPEG/RGB Q=80"
    with tifffile.TiffWriter(path, bigtiff=True) as tiff:
        for number, factor in enumerate(factors):
            side = side_px // factor
            tiff.write(
                tiles(-(-side // TILE_PX)),
                shape=(side, side, 3),
                dtype=np.uint8,
                tile=(TILE_PX, TILE_PX),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 80},
                description=text + "|AppMag = 20|MPP = 0.5",
                metadata=None,
                software=False,
            )
            if number == 0:  # the second page of an Aperio file is its thumbnail
                tiff.write(shades[0], photometric="rgb", description=text, metadata=None, software=False)


def views_by_reader(path: Path) -> list[bytes]:
    from dragonfly_cli.geometry import Box
    from dragonfly_cli.readers import open_source

    source = open_source(path)
    view = source.view(Box(0, 0, *source.size_wh))
    return [view.resize(size).tobytes() for size in VIEW_SIZES]


def views_by_best_level(path: Path) -> list[bytes]:
    import openslide
    from PIL import Image

    views = []
    with openslide.OpenSlide(path) as slide:
        for width, height in VIEW_SIZES:
            level = slide.get_best_level_for_downsample(min(slide.dimensions[0] / width, slide.dimensions[1] / height))
            pixels = slide.read_region((0, 0), level, slide.level_dimensions[level]).convert("RGB")
            rows = pixels.resize((width, pixels.height), Image.Resampling.BICUBIC)
            views.append(rows.resize((width, height), Image.Resampling.BICUBIC).tobytes())
    return views


def views_by_level_0(path: Path) -> None:
    import openslide
    from PIL import Image

    with openslide.OpenSlide(path) as slide:
        pixels = slide.read_region((0, 0), 0, slide.dimensions).convert("RGB")
    for size in VIEW_SIZES:
        pixels.resize(size, Image.Resampling.BICUBIC)


def measure(way: str, path: Path) -> dict[str, float]:
    """Seconds (elapsed, and of all cores) and peak memory (MB) of one way, which is run here.

    Call it in a process of its own.
    """
    import openslide  # noqa: F401
    from PIL import Image  # noqa: F401

    from dragonfly_cli.readers import slide  # noqa: F401

    baseline_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    start, cpu_start = time.perf_counter(), time.process_time()
    views = WAYS[way](path)
    seconds, cpu_seconds = time.perf_counter() - start, time.process_time() - cpu_start
    peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    pixels = zlib.crc32(b"".join(views or []))
    memory = {"peak_mb": peak_mb, "above_imports_mb": peak_mb - baseline_mb}
    return {"seconds": seconds, "cpu_seconds": cpu_seconds, **memory, "pixels": pixels}


LEVEL_0 = "level 0"
WAYS: dict[str, Callable[[Path], list[bytes] | None]] = {
    "reader": views_by_reader,
    "best level": views_by_best_level,
    LEVEL_0: views_by_level_0,
}


def measured_apart(way: str, path: Path, rounds: int = 1) -> dict[str, float]:
    """The least of all rounds, figure by figure."""
    command = [sys.executable, __file__, "--measure", way, "--slide", str(path)]
    every = [
        json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout) for _ in range(rounds)
    ]
    return {name: min(each[name] for each in every) for name in every[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=16384, help="width and height of the slide in pixels")
    parser.add_argument("--small-side", type=int, default=4096, help="of the slide whose memory is compared")
    parser.add_argument("--rounds", type=int, default=1, help="of which the least counts")
    parser.add_argument("--without-level-0", action="store_true", help="compare with the best level alone")
    parser.add_argument("--measure", choices=tuple(WAYS), help=argparse.SUPPRESS)
    parser.add_argument("--slide", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.measure:
        print(json.dumps(measure(options.measure, options.slide)))
        return
    with tempfile.TemporaryDirectory() as folder:
        for step, factors in PYRAMIDS.items():
            path = Path(folder) / f"slide{step}.svs"
            write_slide(path, options.side, factors)
            ways = [way for way in WAYS if way != LEVEL_0 or not options.without_level_0]
            measured = {way: measured_apart(way, path, options.rounds) for way in ways}
            path.unlink()
            write_slide(path, options.small_side, factors)
            report(step, measured, measured_apart("reader", path))
            path.unlink()


def report(step: int, measured: dict[str, dict[str, float]], small: dict[str, float]) -> None:
    ours, best = measured["reader"], measured["best level"]
    for way, figures in measured.items():
        for name in ("seconds", "cpu_seconds", "peak_mb", "above_imports_mb"):
            print(f"steps of {step}, {way}, {name}: {figures[name]:.2f}")
    print(f"steps of {step}, times faster than the best level (target 1.5): {best['seconds'] / ours['seconds']:.2f}")
    print(f"steps of {step}, pixels equal to the best level's: {ours['pixels'] == best['pixels']}")
    print(f"steps of {step}, memory beside the small slide's (target 1.05): {ours['peak_mb'] / small['peak_mb']:.3f}")
    if naive := measured.get(LEVEL_0):
        print(f"steps of {step}, times faster than level 0 (target 60): {naive['seconds'] / ours['seconds']:.1f}")
        for name in ("peak_mb", "above_imports_mb"):
            print(f"steps of {step}, share of {name} (target below 0.10): {ours[name] / naive[name]:.3f}")


if __name__ == "__main__":
    main()
