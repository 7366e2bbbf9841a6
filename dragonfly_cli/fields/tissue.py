"""Where a slide has tissue: a mask on a thumbnail, from Otsu's thresholds on saturation and brightness.

Beside strongly stained tissue these call pale tissue glass; it is looked for in what they leave.

Small objects are dropped and small holes filled, by area in square microns. Ink of a pen is left out and reported, and
so is what was not scanned. On a ground that is not white (``background``), a dim one is first brought to white, and on
a dark one tissue is what differs from it.
Source: N. Otsu, "A threshold selection method from gray-level histograms" (1979).
"""

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image
from scipy import ndimage

from dragonfly_cli.fields.background import GLASS, Ground, ground_of, is_colourless
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source, whole_of

THUMBNAIL_SIDE_PX = 1024
# Glass is nearly white and colourless. The thresholds may not leave these ranges, so that a slide that is all tissue
# is not split into dark and pale tissue, nor one that is all glass into two kinds of noise.
SATURATION_RANGE = (14, 40)
LUMA_RANGE = (150, 215)
FAINT_COLOUR, FAINT_SHADE = 8, 20  # more colour, and less light, than most of what is not stained
SMALLEST_OBJECT_UM2 = 20_000.0  # a disc of 160 microns
LARGEST_FILLED_HOLE_UM2 = 60_000.0
GREY_SLIDE = (
    "the slide has no colours, and what is dark in it was taken for tissue; if that is not so, as in fluorescence, "
    "--region or --roi says where to look"
)
_SMALLEST_OBJECT_SHARE = 5e-4  # of the thumbnail, where there is no scale
_REPORTED_SHARE = 0.01
_MOST_INK_SHARE = 0.3  # more of that colour than this is a stain


@dataclass(frozen=True)
class Tissue:
    """A mask [rows, columns] over the whole frame; ``found`` is False when it had to be all of it."""

    mask: np.ndarray
    size_wh: tuple[int, int]  # of the frame, in level-0 pixels
    found: bool
    ink_share: float = 0.0

    @property
    def pixel_wh(self) -> tuple[float, float]:
        """Level-0 pixels per pixel of the mask."""
        rows, columns = self.mask.shape
        return self.size_wh[0] / columns, self.size_wh[1] / rows

    @property
    def bounds(self) -> Box:
        """The smallest box with all of the tissue, in level-0 pixels."""
        rows, columns = np.nonzero(self.mask.any(axis=1))[0], np.nonzero(self.mask.any(axis=0))[0]
        return self._box(columns[0], rows[0], columns[-1] + 1, rows[-1] + 1)

    @cached_property
    def pieces(self) -> list[Box]:
        """Boxes around its separate pieces, in level-0 pixels."""
        found = ndimage.find_objects(ndimage.label(self.mask)[0])
        return [self._box(columns.start, rows.start, columns.stop, rows.stop) for rows, columns in found]

    def _box(self, left: int, top: int, right: int, bottom: int) -> Box:
        """A box of mask pixels, the last ones exclusive, in level-0 pixels."""
        width, height = self.pixel_wh
        x, y = int(left * width), int(top * height)
        end_x, end_y = (
            min(end, math.ceil(edge)) for end, edge in zip(self.size_wh, (right * width, bottom * height), strict=True)
        )
        return Box(x, y, end_x - x, end_y - y)

    def share(self, box: Box) -> float:
        """How much of ``box`` is tissue, 0 to 1; what lies beyond the frame is none."""
        width, height = self.pixel_wh
        left, top, right, bottom = box.corners
        area = self._sum_to(right / width, bottom / height) - self._sum_to(left / width, bottom / height)
        area += self._sum_to(left / width, top / height) - self._sum_to(right / width, top / height)
        return float(area * width * height / (box.width * box.height))

    def _sum_to(self, x: float, y: float) -> float:
        """The mask's area left of and above a point, in its pixels; linear between them."""
        sums = self._sums
        rows, columns = self.mask.shape
        x, y = min(max(x, 0.0), columns), min(max(y, 0.0), rows)
        column, row = min(int(x), columns - 1), min(int(y), rows - 1)
        dx, dy = x - column, y - row
        upper = sums[row, column] * (1 - dx) + sums[row, column + 1] * dx
        lower = sums[row + 1, column] * (1 - dx) + sums[row + 1, column + 1] * dx
        return float(upper * (1 - dy) + lower * dy)

    @cached_property
    def _sums(self) -> np.ndarray:
        return np.pad(self.mask.astype(np.float64).cumsum(axis=0).cumsum(axis=1), ((1, 0), (1, 0)))


def find_tissue(source: Source) -> Tissue:
    """The tissue of a slide's only frame; all of it where none stands out. Says what it met in ``source.warnings``."""
    thumbnail = source.view(whole_of(source)).resize(_thumbnail_wh(source.size_wh))
    pixels = np.asarray(thumbnail)
    rows, columns = pixels.shape[:2]
    pixel_um2 = None
    if source.mpp is not None:
        pixel_um2 = source.size_wh[0] * source.mpp[0] / columns * source.size_wh[1] * source.mpp[1] / rows
    ground = ground_of(pixels)
    tissue = tissue_in(pixels, ground, pixel_um2, source.size_wh)
    source.warnings += _notes(tissue, ground)
    if tissue.found and not ground.is_dark and is_colourless(pixels):
        source.warnings.append(GREY_SLIDE)
    return tissue


def _notes(tissue: Tissue, ground: Ground) -> list[str]:
    """What a user should know of how tissue was told from the rest."""
    notes = []
    if not tissue.found:
        notes.append("tissue: fallback: none stood out from the background, so all that was scanned was taken for it")
    if tissue.ink_share > _REPORTED_SHARE:
        notes.append(f"pen marks were left out of the search: {tissue.ink_share:.0%} of what is not glass")
    if ground.unscanned_share > _REPORTED_SHARE:
        notes.append(
            f"{ground.unscanned_share:.0%} of the slide is one even grey, as where nothing is scanned, and was left out"
        )
    if ground.is_dark or ground.is_dim:
        kind = "dark" if ground.is_dark else "grey"
        notes.append(f"the background is {kind} ({ground.level} of 255): what stands out from it was taken for tissue")
    return notes


def tissue_in(pixels: np.ndarray, ground: Ground, pixel_um2: float | None, size_wh: tuple[int, int]) -> Tissue:
    """The tissue in a picture, [rows, columns, 3] uint8, of a frame of ``size_wh`` level-0 pixels."""
    seen = _on_white(pixels, ground)
    scanned = ~ground.unscanned
    smallest = SMALLEST_OBJECT_UM2 / pixel_um2 if pixel_um2 else _SMALLEST_OBJECT_SHARE * scanned.size
    stained = (_differs(pixels, ground) if ground.is_dark else _stands_out(seen, scanned)) & scanned
    if not ground.is_dark:
        stained |= _faint(seen, scanned & ~stained, stained, 2 * math.sqrt(smallest / math.pi))
    # what ink looks like on a dark ground is not known
    ink = np.zeros_like(stained) if ground.is_dark else _pen_marks(seen, stained, smallest)
    mask = _cleaned(stained & ~ink, smallest) & ~ink & scanned
    found = bool(mask.any())
    everything = scanned if scanned.any() else np.ones_like(scanned)
    return Tissue(mask if found else everything, size_wh, found, _share_of(ink, stained))


def _pen_marks(seen: np.ndarray, stained: np.ndarray, smallest_px: float) -> np.ndarray:
    """Where there is ink; nowhere, if there is so much of it that it must be a stain."""
    ink = _without_small(_ink(seen) & stained, smallest_px)  # the nuclei of a finely scanned slide are dark, but small
    return ink if _share_of(ink, stained) <= _MOST_INK_SHARE else np.zeros_like(ink)


def _share_of(part: np.ndarray, whole: np.ndarray) -> float:
    return float(part.sum() / max(1, whole.sum()))


def _cleaned(mask: np.ndarray, smallest_px: float) -> np.ndarray:
    """``mask`` with cracks and small holes filled, and without small objects."""
    objects = _without_small(ndimage.binary_closing(mask, iterations=1) | mask, smallest_px)
    return ~_without_small(~objects, LARGEST_FILLED_HOLE_UM2 / SMALLEST_OBJECT_UM2 * smallest_px)


def otsu(values: np.ndarray) -> int:
    """The threshold of 8-bit values that parts them into the two most distinct classes; the upper one is above it."""
    counts = np.bincount(values.ravel(), minlength=256).astype(np.float64)
    below = counts.cumsum()
    above = below[-1] - below
    mass = (counts * np.arange(256)).cumsum()
    with np.errstate(divide="ignore", invalid="ignore"):
        between = below * above * (mass / below - (mass[-1] - mass) / above) ** 2
    return int(np.nan_to_num(between).argmax())


def _on_white(pixels: np.ndarray, ground: Ground) -> np.ndarray:
    """The picture as it were if the light behind its glass were as strong as it mostly is."""
    if not ground.is_dim or ground.levels is None:
        return pixels
    return np.minimum(pixels * (GLASS / ground.levels), 255).astype(np.uint8)


def _stands_out(pixels: np.ndarray, scanned: np.ndarray) -> np.ndarray:
    saturation, luma = _saturation(pixels), np.asarray(Image.fromarray(pixels).convert("L"))
    coloured = saturation > np.clip(otsu(saturation[scanned]), *SATURATION_RANGE)
    return (coloured & (luma < 250)) | (luma < np.clip(otsu(luma[scanned]), *LUMA_RANGE))


def _faint(pixels: np.ndarray, rest: np.ndarray, stained: np.ndarray, radius_px: float) -> np.ndarray:
    """What of the ``rest`` is tissue too, though so pale that beside strong stain one threshold calls it glass.

    Discs of that radius must fit into it, so that edges and threads of what is stained stay what they are.
    """
    if not rest.any():
        return rest
    saturation, luma = _saturation(pixels), np.asarray(Image.fromarray(pixels).convert("L"))
    colour = np.clip(max(otsu(saturation[rest]), np.median(saturation[rest]) + FAINT_COLOUR), *SATURATION_RANGE)
    shade = np.clip(min(otsu(luma[rest]), np.median(luma[rest]) - FAINT_SHADE), *LUMA_RANGE)
    faint = rest & (((saturation > colour) & (luma < 250)) | (luma < shade))
    faint = ndimage.binary_closing(faint | stained) & rest
    middles = ndimage.distance_transform_edt(np.pad(faint, 1))[1:-1, 1:-1] > radius_px
    if not middles.any():
        return middles
    return faint & (ndimage.distance_transform_edt(~middles) <= radius_px + 1)


def _differs(pixels: np.ndarray, ground: Ground) -> np.ndarray:
    difference = np.abs(pixels - ground.levels).max(axis=-1).astype(np.uint8)
    return difference > np.clip(otsu(difference[~ground.unscanned]), *SATURATION_RANGE)


def _saturation(pixels: np.ndarray) -> np.ndarray:
    """Greatest less smallest of the three colours: unlike HSV's it calls black colourless."""
    return pixels.max(axis=-1) - pixels.min(axis=-1)


def _ink(pixels: np.ndarray) -> np.ndarray:
    """Black, and strong blue, cyan and green, which haematoxylin and eosin do not give."""
    red, green, blue = (pixels[..., channel].astype(np.int16) for channel in range(3))
    black = pixels.max(axis=-1) < 60
    greenish = (green - red > 40) & (green > blue - 30)
    bluish = (blue - red > 90) & (green - red > 25)
    return black | greenish | bluish


def _without_small(mask: np.ndarray, smallest_px: float) -> np.ndarray:
    """``mask`` less its connected pieces below ``smallest_px``."""
    labels, _ = ndimage.label(mask)
    kept = np.bincount(labels.ravel()) >= smallest_px
    kept[0] = False
    return kept[labels]


def _thumbnail_wh(size_wh: tuple[int, int]) -> tuple[int, int]:
    scale = min(1.0, THUMBNAIL_SIDE_PX / max(size_wh))
    return max(1, round(size_wh[0] * scale)), max(1, round(size_wh[1] * scale))
