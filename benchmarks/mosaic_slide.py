"""A large slide with one lesion at a known place, for trying whether a search finds it.

    python benchmarks/mosaic_slide.py slide.svs [--side 16384] [--lesion necrosis] [--seed 0]
    python benchmarks/mosaic_slide.py slide.svs --tiles FOLDER --lesion-tiles FOLDER

A slide is a grid of square cells, each a picture out of a stock, turned and mirrored at random: generated tissue, or
the pictures of a folder. A block of cells somewhere in the tissue shows the lesion. The file is a tiled JPEG pyramid
as Aperio's (levels shrink by 4), written strip by strip, so that memory does not grow with the slide's area.
Prints the lesion's box in level-0 pixels. Needs tifffile and imagecodecs (the ``test`` extra).
"""

import argparse
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageOps

sys.path.insert(0, str(Path(__file__).parents[1]))
from examples.tissue import Stain, draw_patch

CELL_PX = 256  # of level 0
FACTORS = (1, 4, 16)  # the side of a cell is a multiple of each
TILE_PX = 256
STOCK = 16  # pictures of healthy tissue; with turns and mirrors eight times as many
TISSUE_SHARE = 0.55  # of the slide, on average
GLASS, HEALTHY, LESION = 0, 1, 2


@dataclass(frozen=True)
class Mosaic:
    """Which picture lies in which cell, and the pictures themselves, [side, side, 3] uint8 each."""

    cells: np.ndarray  # [rows, columns] int: place in the stock
    turns: np.ndarray  # [rows, columns] int, 0 to 7: quarter turns, from 4 on mirrored
    stock: list[np.ndarray]
    lesion_box: tuple[int, int, int, int]  # x, y, width, height in level-0 pixels
    microns_per_pixel: float

    @property
    def cell_px(self) -> int:
        return len(self.stock[0])

    @property
    def size_wh(self) -> tuple[int, int]:
        rows, columns = self.cells.shape
        return columns * self.cell_px, rows * self.cell_px

    def strips(self, factor: int) -> Iterator[np.ndarray]:
        """One level from top to bottom, [cell's height, width of the level, 3] at a time."""
        side = self.cell_px // factor
        small = [np.asarray(Image.fromarray(cell).resize((side, side), Image.Resampling.BOX)) for cell in self.stock]
        for numbers, turns in zip(self.cells, self.turns, strict=True):
            row = [_turned(small[number], turn) for number, turn in zip(numbers, turns, strict=True)]
            yield np.concatenate(row, axis=1)


def _turned(cell: np.ndarray, turn: int) -> np.ndarray:
    turned = np.rot90(cell, turn % 4)
    return turned[:, ::-1] if turn >= 4 else turned


def plan_mosaic(
    side_px: int,
    seed: int,
    pictures: tuple[list[np.ndarray], list[np.ndarray]],
    *,
    lesion_cells: int = 2,
    microns_per_pixel: float = 0.5,
) -> Mosaic:
    """A square slide of tissue on glass; ``pictures`` are those of healthy tissue and those of the lesion, cells all.

    ``side_px`` is rounded up to whole cells. The lesion is a square of ``lesion_cells`` a side within the tissue.
    """
    rng = np.random.default_rng(seed)
    cell_px = len(pictures[0][0])
    count = -(-side_px // cell_px)
    if count < lesion_cells + 2:
        raise ValueError(f"a side of {side_px} px has no room for a lesion of {lesion_cells * cell_px} px")
    kinds = _tissue_cells(count, rng)
    top, left = _free_place(kinds, lesion_cells, rng)
    kinds[top : top + lesion_cells, left : left + lesion_cells] = LESION
    healthy, lesion = pictures
    glass = rng.integers(238, 246, (cell_px, cell_px, 1)).repeat(3, axis=2).astype(np.uint8)
    places = {
        GLASS: np.zeros(kinds.shape, int),
        HEALTHY: rng.integers(0, len(healthy), kinds.shape) + 1,
        LESION: rng.integers(0, len(lesion), kinds.shape) + 1 + len(healthy),
    }
    box = (left * cell_px, top * cell_px, lesion_cells * cell_px, lesion_cells * cell_px)
    cells = np.select([kinds == kind for kind in places], list(places.values()))
    return Mosaic(cells, rng.integers(0, 8, kinds.shape), [glass, *healthy, *lesion], box, microns_per_pixel)


def _tissue_cells(count: int, rng: np.random.Generator) -> np.ndarray:
    """An uneven round piece of tissue amid glass, [count, count] of GLASS and HEALTHY."""
    y, x = (np.mgrid[0:count, 0:count] + 0.5) / count - 0.5
    angle, phases = np.arctan2(y, x), rng.uniform(0, 2 * np.pi, 3)
    reach = 0.42 + sum(0.03 * np.sin(waves * angle + phase) for waves, phase in zip((2, 3, 5), phases, strict=True))
    return np.where(np.hypot(x, y) < reach, HEALTHY, GLASS)


def _free_place(kinds: np.ndarray, side: int, rng: np.random.Generator) -> tuple[int, int]:
    """Row and column of a square of tissue, any of them equally likely."""
    windows = np.lib.stride_tricks.sliding_window_view(kinds, (side, side))
    free = np.argwhere((windows == HEALTHY).all(axis=(2, 3)))
    if not len(free):
        raise ValueError(f"the tissue has no square of {side} cells for the lesion")
    top, left = free[rng.integers(len(free))]
    return int(top), int(left)


def generated_pictures(lesion: str, seed: int, cell_px: int) -> tuple[list[np.ndarray], list[np.ndarray]]:
    """Cells of benign tissue and of the lesion's kind, all in one stain, at 0.5 microns per pixel."""
    rng = np.random.default_rng(seed)
    stain = Stain.random(rng)

    def draw(kind: str) -> np.ndarray:
        return np.asarray(draw_patch(kind, (cell_px, cell_px), 0.5, rng, stain))

    healthy = [draw("stroma" if number % 4 == 3 else "benign") for number in range(STOCK)]
    return healthy, [draw(lesion) for _ in range(4)]


def pictures_of(folder: Path, cell_px: int) -> list[np.ndarray]:
    """The pictures of a folder in the order of their names, each cut and scaled to a cell."""
    paths = sorted(path for path in folder.iterdir() if path.suffix.lower() in {".png", ".jpg", ".jpeg", ".tif"})
    if not paths:
        raise FileNotFoundError(f"there is no picture in {folder}")
    return [np.asarray(ImageOps.fit(Image.open(path).convert("RGB"), (cell_px, cell_px))) for path in paths[:64]]


def write_mosaic(path: Path, mosaic: Mosaic, quality: int = 80) -> None:
    """The slide as a file that OpenSlide opens as ``aperio``."""
    width, height = mosaic.size_wh
    text = f"Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q={quality}"
    text += f"|AppMag = 20|MPP = {mosaic.microns_per_pixel}"
    jpeg: dict[str, Any] = {"compression": "jpeg", "compressionargs": {"level": quality}}
    page: dict[str, Any] = {"photometric": "rgb", "description": text, "metadata": None, "software": False} | jpeg
    with tifffile.TiffWriter(path, bigtiff=width * height > 10**9) as tiff:
        for factor in FACTORS:
            shape = (height // factor, width // factor, 3)
            tiles = _tiles(mosaic.strips(factor), shape[1])
            tiff.write(tiles, shape=shape, dtype=np.uint8, tile=(TILE_PX, TILE_PX), **page)
            if factor == 1:  # the second page of an Aperio file is its thumbnail
                tiff.write(np.concatenate(list(mosaic.strips(FACTORS[-1]))), rowsperstrip=16, **page)


def _tiles(strips: Iterator[np.ndarray], width: int) -> Iterator[np.ndarray]:
    """Strips of any height as whole tiles, row by row; what is beyond the edges is black."""
    padding = ((0, 0), (0, -width % TILE_PX), (0, 0))
    waiting = np.empty((0, width, 3), np.uint8)
    for strip in strips:
        waiting = np.concatenate([waiting, strip])
        while len(waiting) >= TILE_PX:
            yield from _tile_row(np.pad(waiting[:TILE_PX], padding))
            waiting = waiting[TILE_PX:]
    if len(waiting):
        yield from _tile_row(np.pad(waiting, ((0, TILE_PX - len(waiting)), *padding[1:])))


def _tile_row(pixels: np.ndarray) -> Iterator[np.ndarray]:
    for left in range(0, pixels.shape[1], TILE_PX):
        yield np.ascontiguousarray(pixels[:, left : left + TILE_PX])


def main() -> None:
    parser = argparse.ArgumentParser(description="Write a large slide with one lesion at a known place.")
    parser.add_argument("output", type=Path)
    parser.add_argument("--side", type=int, default=16384, help="pixels")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--lesion", choices=["tumour", "necrosis"], default="necrosis")
    parser.add_argument("--lesion-cells", type=int, default=2, help="side of the lesion in cells")
    parser.add_argument("--cell", type=int, default=CELL_PX, help="side of a cell in pixels, a multiple of 16")
    parser.add_argument("--tiles", type=Path, help="folder of pictures of healthy tissue instead of generated ones")
    parser.add_argument("--lesion-tiles", type=Path, help="folder of pictures of the lesion; goes with --tiles")
    options = parser.parse_args()
    if (options.tiles is None) != (options.lesion_tiles is None):
        parser.error("--tiles and --lesion-tiles go together")
    if options.tiles:
        pictures = pictures_of(options.tiles, options.cell), pictures_of(options.lesion_tiles, options.cell)
    else:
        pictures = generated_pictures(options.lesion, options.seed, options.cell)
    mosaic = plan_mosaic(options.side, options.seed, pictures, lesion_cells=options.lesion_cells)
    write_mosaic(options.output, mosaic)
    print("lesion:", ",".join(map(str, mosaic.lesion_box)))


if __name__ == "__main__":
    main()
