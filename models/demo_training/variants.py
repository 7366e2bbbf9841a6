"""Pictures for the language model to learn from: varied ones, and fields made of several tiles with one odd one."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from demo_training.augment import FLIPS, jitter_colours, to_unit
from demo_training.dataset import BLANK, ImageRow, load_picture
from demo_training.facts import TISSUE

UNTOUCHED = 0.3  # share of the pictures that stay as they are
OFTEN_UNTOUCHED = dict.fromkeys(("lc25000", "oral", "cxr_pneumonia"), 0.6)  # the same where there are many
SMALLER = 0.3  # share of the others that lose resolution
SMALLEST_PART = {
    "osteosarcoma": 0.45,  # of the side of a picture: its parts show what the whole does
    "bccd": 1.0,  # its cells are counted in the whole
}
ON_GLASS = 0.08  # share of tissue pictures that fill a part of their field only
ON_PLATE = 0.3  # share of films and slices that do
ASLANT = 0.3, 25.0  # share of those on a plate that are turned, and by how many degrees at most
LIFTED = 0.5, 170.0  # share of them whose dark parts are grey, and how grey at most
MOSAIC = "mosaic"  # the group of fields of tiles
GLASS = (242, 240, 243)
TILE_SIDE_PX = 112
CUT_TILE_SIDES_PX = (28, 56, 112, 160, 224, 224)
FIELD_PX = 672, 448  # what the high crops show at full size
GRIDS = ((2, 2), (3, 2), (3, 3), (4, 3), (6, 4))  # columns and rows of tiles
BASE_SHARES = (0.3, 0.3, 0.2, 0.2)  # of what surrounds, in the order of ODD; few pictures of bone are there
# What surrounds the odd tile, always healthy -> what the odd tile may be. The field is labelled by the odd tile.
ODD = {
    "lung_benign": ("lung_adenocarcinoma", "lung_squamous_cell_carcinoma"),
    "colon_benign": ("colon_adenocarcinoma",),
    "oral_normal": ("oral_squamous_cell_carcinoma",),
    "non_tumour": ("viable_tumour", "necrotic_tumour"),
}


def vary(picture: Image.Image, row: ImageRow, rng: np.random.Generator) -> tuple[Image.Image, ImageRow]:
    """The picture cropped, turned over, recoloured, made smaller or laid on a ground, at random; and what it shows."""
    if row.label == BLANK or rng.random() < OFTEN_UNTOUCHED.get(row.dataset, UNTOUCHED):
        return picture, row
    picture, row = crop_and_flip(picture, row, rng)
    seed = torch.Generator().manual_seed(int(rng.integers(2**31)))
    recoloured = jitter_colours(to_unit([np.asarray(picture)]), [row], seed)
    picture = Image.fromarray((recoloured[0].permute(1, 2, 0) * 255).round().byte().numpy())
    if rng.random() < SMALLER:
        scale = float(rng.uniform(0.35, 1.0))
        picture = picture.resize((round(picture.width * scale), round(picture.height * scale)))
    if row.label in TISSUE and rng.random() < ON_GLASS:
        picture = lay_on_glass(picture, rng)
    elif not row.microscopic and rng.random() < ON_PLATE:
        picture = lay_on_plate(picture, rng)
    return picture, row


def crop_and_flip(picture: Image.Image, row: ImageRow, rng: np.random.Generator) -> tuple[Image.Image, ImageRow]:
    part = rng.uniform(SMALLEST_PART.get(row.dataset, 0.6 if row.microscopic else 0.8), 1.0, 2)
    left, top = (float(place) for place in rng.uniform(0, 1, 2) * (1 - part))
    box = left, top, left + float(part[0]), top + float(part[1])
    width, height = picture.size
    picture = picture.crop((round(left * width), round(top * height), round(box[2] * width), round(box[3] * height)))
    for flip in FLIPS if row.microscopic else FLIPS[:1]:
        if rng.random() < 0.5 and row.dataset != "vqa_rad":  # its questions ask for left and right
            picture = picture.transpose(flip)
    return picture, row.within(box)


def lay_on_glass(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture in a field of glass up to twice as wide and high."""
    return lay_in_field(picture, rng.uniform(1.15, 2.0, 2), GLASS, rng)


def lay_on_plate(picture: Image.Image, rng: np.random.Generator) -> Image.Image:
    """The picture in a dark or grey field, as a small film on a plate: some are aslant, and some have no black."""
    share, most = LIFTED
    if rng.random() < share:
        darkest = rng.uniform(0, most)
        pixels = darkest + np.asarray(picture.convert("RGB")) * ((255 - darkest) / 255)
        picture = Image.fromarray(pixels.round().astype(np.uint8))
    grey = int(rng.integers(0, 20) if rng.random() < 0.6 else rng.integers(60, 140))
    field = lay_in_field(picture, rng.uniform(1.05, 2.4, 2), (grey, grey, grey), rng)
    share, most = ASLANT
    if rng.random() < share:
        field = field.rotate(rng.uniform(-most, most), Image.Resampling.BICUBIC, fillcolor=(grey, grey, grey))
    return field


def lay_in_field(
    picture: Image.Image, larger: np.ndarray, colour: tuple[int, int, int], rng: np.random.Generator
) -> Image.Image:
    """The picture somewhere in a field of one colour, ``larger`` times as wide and high."""
    extent = (np.array(picture.size) * larger).astype(int)
    field = Image.new("RGB", (int(extent[0]), int(extent[1])), colour)
    left, top = (rng.uniform(0, 1, 2) * (extent - np.array(picture.size))).astype(int)
    field.paste(picture, (int(left), int(top)))
    return field


def counterparts(label: str) -> frozenset[str]:
    """What a field of tiles could have been labelled by, with an odd tile or without."""
    around = {base for base, odd in ODD.items() if label in odd}
    return frozenset(around.union(ODD.get(label, ())))


@dataclass(frozen=True)
class Tiling:
    """Square tiles over a field, and a square block among them that may be odd."""

    side: int
    hidden: tuple[int, int]  # pixels of the first column and row that lie outside the field
    first: tuple[int, int]  # column and row of the block's first tile
    block: int  # tiles along the block's side

    def places(self, size_wh: tuple[int, int]) -> Iterator[tuple[tuple[int, int], tuple[int, int]]]:
        """Column and row of each tile, and its left and upper edge."""
        columns, rows = (-(-(extent + out) // self.side) for extent, out in zip(size_wh, self.hidden, strict=True))
        for row in range(rows):
            for column in range(columns):
                yield (column, row), (column * self.side - self.hidden[0], row * self.side - self.hidden[1])

    def in_block(self, column: int, row: int) -> bool:
        return 0 <= column - self.first[0] < self.block and 0 <= row - self.first[1] < self.block


@dataclass
class Mosaics:
    """Fields of tiles from pictures of one split."""

    data: Path
    rows: list[ImageRow]
    rng: np.random.Generator

    def __post_init__(self) -> None:
        self.pools: dict[str, list[ImageRow]] = {}
        for row in self.rows:
            self.pools.setdefault(row.label, []).append(row)

    def draw(self, grid: tuple[int, int] | None = None, odd: bool | None = None) -> tuple[Image.Image, ImageRow]:
        """A field, and a row that says what it shows; half of the fields have an odd tile."""
        columns, lines = grid or GRIDS[int(self.rng.integers(len(GRIDS)))]
        field = Image.new("RGB", (columns * TILE_SIDE_PX, lines * TILE_SIDE_PX))
        line, column = divmod(int(self.rng.integers(columns * lines)), columns)
        return field, self._fill(field, Tiling(TILE_SIDE_PX, (0, 0), (column, line), 1), odd)

    def draw_cut(self) -> tuple[Image.Image, ImageRow]:
        """A field of a slide that is made of tiles: its edges and its crops cut them. Small ones are odd in a block."""
        side = int(self.rng.choice(CUT_TILE_SIDES_PX))
        block = -(-TILE_SIDE_PX // side)
        field = Image.new("RGB", FIELD_PX)
        hidden = self.rng.integers(side, size=2)
        whole = [int((extent + out) // side) for extent, out in zip(FIELD_PX, hidden, strict=True)]
        first = [int(self.rng.integers(1, max(2, count - block + 1))) for count in whole]
        tiling = Tiling(side, (int(hidden[0]), int(hidden[1])), (first[0], first[1]), block)
        return field, self._fill(field, tiling, None)

    def _fill(self, field: Image.Image, tiling: Tiling, odd: bool | None) -> ImageRow:
        """Paste tiles; those of the block may be odd."""
        base = str(self.rng.choice(list(ODD), p=BASE_SHARES))
        odd_label = str(self.rng.choice(ODD[base]))
        with_odd = bool(self.rng.random() < 0.5) if odd is None else odd
        for (column, line), (left, top) in tiling.places(field.size):
            label = odd_label if with_odd and tiling.in_block(column, line) else base
            field.paste(self._tile(self._pick(label), tiling.side), (left, top))
        return replace(self._pick(base), label=odd_label if with_odd else base, group=MOSAIC)

    def _pick(self, label: str) -> ImageRow:
        pool = self.pools[label]
        return pool[int(self.rng.integers(len(pool)))]

    def _tile(self, row: ImageRow, side: int) -> Image.Image:
        """A square part of a picture, of the side of a tile."""
        picture = load_picture(self.data, row)
        part = round(min(picture.size) * float(self.rng.uniform(0.5, 1.0) if row.dataset != "osteosarcoma" else 0.4))
        left, top = (int(self.rng.integers(extent - part + 1)) for extent in picture.size)
        return picture.resize((side, side), box=(left, top, left + part, top + part))
