"""What of a slide's thumbnail is no specimen: the even grey where nothing was scanned, and the ground it lies on.

Scanners fill what they did not scan with one grey, black as often as not. The ground is glass in bright field, nearly
white or dim, and darkness in fluorescence and dark field; it is colourless and smooth, and may change slowly over the
slide. Pictures are [rows, columns, 3] uint8, masks [rows, columns].
"""

from dataclasses import dataclass

import numpy as np
from scipy import ndimage

WHITE_FROM = 222  # of 255: such a ground is glass as scanners show it
DARK_BELOW = 100  # such a ground is no glass with light behind it: the specimen is what shines
GLASS = 244  # the usual white, to which a dim ground is brought
_COLOURLESS, _SAME_GREY = 24, 12  # greatest less smallest colour; noise and JPEG around a grey
_EVEN_PX = 9  # a block of JPEG, which may be even by chance, has 8
_SMOOTH = 6.0  # standard deviation in 5 x 5 pixels; tissue has more at the scale of a thumbnail
_LEAST_FILLED, _LEAST_GROUND = 0.005, 0.1  # shares of the picture, and of what was scanned
_EDGE_PX = 3  # a resized and compressed edge
_STRAIGHT_PX, _STRAIGHT_SHARE = 16, 0.5  # scans end in straight lines, a specimen does not
_DRIFT = 40  # of a ground from one end of the slide to its middle


@dataclass(frozen=True)
class Ground:
    """``unscanned`` was filled with one even grey; ``level`` is the usual brightness of the ground, if one is seen.

    ``levels`` [rows, columns, 3] are those of the ground as it were without a specimen, unless it is white.
    """

    unscanned: np.ndarray
    levels: np.ndarray | None = None
    level: int | None = None

    @property
    def unscanned_share(self) -> float:
        return float(self.unscanned.mean())

    @property
    def is_dark(self) -> bool:
        return self.level is not None and self.level < DARK_BELOW

    @property
    def is_dim(self) -> bool:
        return self.level is not None and DARK_BELOW <= self.level < WHITE_FROM


def is_colourless(pixels: np.ndarray) -> bool:
    """Whether all of a picture is grey: then nothing tells a stain from glass but that it is darker, or brighter."""
    return bool(np.ptp(pixels, axis=-1).max() <= _COLOURLESS)


def ground_of(pixels: np.ndarray) -> Ground:
    luma = pixels.mean(axis=-1, dtype=np.float32)
    is_grey = np.ptp(pixels, axis=-1) <= _COLOURLESS
    smooth = is_grey & (_deviation(luma) <= _SMOOTH)
    even = is_grey & (ndimage.maximum_filter(luma, _EVEN_PX) == ndimage.minimum_filter(luma, _EVEN_PX))
    unscanned, grey = _unscanned(luma, even, is_grey & (luma < WHITE_FROM))
    level = _ground_level(luma, smooth, ~unscanned)
    if level is None or level >= WHITE_FROM:  # white may be what was filled in, around a dim glass
        white, _ = _unscanned(luma, even, is_grey & (luma >= WHITE_FROM))
        dim = _ground_level(luma, smooth, ~(unscanned | white)) if white.any() else None
        if dim is not None and DARK_BELOW <= dim < WHITE_FROM:
            unscanned, level = unscanned | white, dim
    noisy = is_grey & ~unscanned & (luma < DARK_BELOW)
    is_mostly_dark = 2 * np.count_nonzero(noisy) > np.count_nonzero(~unscanned)  # no stain is so dark and grey
    if is_mostly_dark and (level is None or level >= WHITE_FROM):  # then what is smooth and white is overexposed
        level, smooth = int(np.median(luma[noisy])), noisy
    if level is not None and level >= WHITE_FROM:
        return Ground(unscanned, None, level)
    if level is not None:
        return Ground(unscanned, _surface(pixels, smooth & ~unscanned & (abs(luma - level) <= _DRIFT)), level)
    if unscanned.any():  # all that was scanned is specimen
        return Ground(unscanned, np.full(pixels.shape, float(grey)), grey)
    return Ground(unscanned)


def _unscanned(luma: np.ndarray, even: np.ndarray, wanted: np.ndarray) -> tuple[np.ndarray, int]:
    """Large areas of exactly one grey, among those wanted, from the edge of the picture to straight lines in it.

    What compression has left of them is taken in. Beside them the grey of the largest. What has no such lines is
    a ground without any noise.
    """
    areas = _areas(even & wanted)
    filled, grey = np.zeros(luma.shape, bool), 0
    large = np.flatnonzero(areas.sizes >= _LEAST_FILLED * luma.size)
    for number in sorted(large, key=areas.sizes.__getitem__):
        grey = int(luma[areas.labels == number][0])
        alike = _areas(wanted & (abs(luma - grey) <= _SAME_GREY))
        filled |= alike.at_edge[alike.labels] & np.isin(alike.labels, alike.labels[areas.labels == number])
    if not (filled.any() and _has_straight_edges(filled)):
        return np.zeros_like(filled), 0
    return ndimage.binary_dilation(filled, iterations=_EDGE_PX), grey


@dataclass(frozen=True)
class _Areas:
    """The connected parts of a mask: their numbers by pixel, and by number how large they are; 0 is no part."""

    labels: np.ndarray
    sizes: np.ndarray

    @property
    def at_edge(self) -> np.ndarray:
        labels, found = self.labels, np.zeros(len(self.sizes), bool)
        found[np.concatenate([labels[0], labels[-1], labels[:, 0], labels[:, -1]])] = True
        found[0] = False
        return found


def _areas(mask: np.ndarray) -> _Areas:
    labels, _ = ndimage.label(mask)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    return _Areas(labels, sizes)


def _has_straight_edges(filled: np.ndarray) -> bool:
    edges = [filled[1:] != filled[:-1], (filled[:, 1:] != filled[:, :-1]).T]  # along rows
    straight = [ndimage.binary_opening(edge, np.ones((1, _STRAIGHT_PX))) for edge in edges]
    every = sum(map(np.count_nonzero, edges))
    return every > 0 and sum(map(np.count_nonzero, straight)) >= _STRAIGHT_SHARE * every


def _deviation(luma: np.ndarray) -> np.ndarray:
    mean, square = ndimage.uniform_filter(luma, 5), ndimage.uniform_filter(luma**2, 5)
    return np.sqrt(np.maximum(square - mean**2, 0))


def _ground_level(luma: np.ndarray, smooth: np.ndarray, scanned: np.ndarray) -> int | None:
    """The grey around which most of the smooth pixels gather; if that is not dark, a white one that has enough."""
    counts = np.bincount(luma[smooth & scanned].astype(np.uint8), minlength=256).astype(float)
    smoothed = ndimage.gaussian_filter1d(counts, _SAME_GREY / 2, mode="constant")
    width = 2 * _SAME_GREY + 1
    around = ndimage.uniform_filter1d(counts, width, mode="constant") * width
    is_enough = around >= max(1, _LEAST_GROUND * np.count_nonzero(scanned))
    peaks = np.flatnonzero((smoothed == ndimage.maximum_filter1d(smoothed, width)) & is_enough)
    if not len(peaks):
        return None
    fullest = int(peaks[around[peaks].argmax()])
    return fullest if fullest < DARK_BELOW or peaks[-1] < WHITE_FROM else int(peaks[-1])


def _surface(pixels: np.ndarray, ground: np.ndarray) -> np.ndarray:
    """The ground as it would be under the specimen too: of each colour a parabola in x and y, by least squares."""
    rows, columns = ground.shape
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    terms = np.stack([np.ones_like(x), x, y, x * x, x * y, y * y], axis=-1)  # [rows, columns, 6]
    seen, values = terms[ground], pixels[ground].astype(float)
    step = max(1, len(seen) // 20_000)
    factors, *_ = np.linalg.lstsq(seen[::step], values[::step], rcond=None)
    return np.clip(terms @ factors, values.min(axis=0), values.max(axis=0))
