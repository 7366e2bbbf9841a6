"""From stored DICOM values to the 8 bits that a viewer would show: pure arithmetic on numpy arrays.

The order is that of DICOM PS3.3 C.7.6.3, C.11.1 and C.11.2: modality LUT or rescale, then VOI LUT or window, then
the inversion of MONOCHROME1, last. Values are never cast back to the stored type between the steps. Rounding is to
the nearest. Up to 16 bits the whole way is computed once per possible value, then looked up for every pixel.
Non-goals: presentation states, overlays, decoding; colour profiles are in ``colour``.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np

from dragonfly_cli.readers.dicom.choices import Window

Array = np.ndarray[Any, np.dtype[Any]]
BLOCK = 2**16  # values that are looked up at a time
PERCENTILES = (0.5, 99.5)  # leaves out the markers and dead pixels that a minimum and maximum would follow


@dataclass(frozen=True)
class LookupTable:
    """A modality or VOI LUT: ``entries[0]`` answers ``first`` and all below it, the last entry all above."""

    first: int
    bits: int
    entries: Array  # [entries]

    def apply(self, values: Array) -> Array:
        """The entries for ``values``, same shape."""
        index = np.clip(np.rint(values) - self.first, 0, len(self.entries) - 1)
        return self.entries[np.nan_to_num(index).astype(np.int64)]

    def for_signed(self, is_signed: bool) -> "LookupTable":
        """Headers may give a negative ``first`` as an unsigned 16-bit number; ``is_signed`` if it can be meant so."""
        return LookupTable(self.first - 65536, self.bits, self.entries) if is_signed and self.first > 32767 else self

    @property
    def top(self) -> int:
        """The entry shown as white; some tables hold more bits than their descriptor admits."""
        return max(2**self.bits - 1, int(self.entries.max()))


@dataclass(frozen=True)
class Rescale:
    """Stored value times ``slope`` plus ``intercept``."""

    slope: float = 1.0
    intercept: float = 0.0

    def apply(self, values: Array) -> Array:
        """Floating point, same shape; what has up to 16 bits fits float32 exactly before the product."""
        kind = np.float32 if values.dtype.itemsize <= 2 or values.dtype == np.float32 else np.float64
        if (self.slope, self.intercept) == (1, 0):
            return values.astype(kind)
        return (values.astype(np.float64) * self.slope + self.intercept).astype(kind)


Modality = Rescale | LookupTable
Voi = Window | LookupTable


@dataclass(frozen=True)
class GrayWay:
    """The way from a stored value to a grey level; ``black`` is a range of stored values that is shown black."""

    modality: Modality
    voi: Voi
    is_inverted: bool = False  # MONOCHROME1, whose lowest value is white, or a presentation LUT of shape INVERSE
    black: tuple[float, float] | None = None

    def levels(self, stored: Array) -> Array:
        """Stored values as uint8, same shape."""
        if stored.dtype.kind not in "iu" or stored.dtype.itemsize > 2 or stored.size < 2 ** (8 * stored.itemsize):
            return self._compute(stored)
        unsigned = np.dtype(f"u{stored.itemsize}")
        every = np.arange(2 ** (8 * stored.itemsize), dtype=unsigned).view(stored.dtype)
        return look_up(self._compute(every), stored.view(unsigned))

    def _compute(self, stored: Array) -> Array:
        values = self.modality.apply(stored)
        if isinstance(self.voi, LookupTable):
            grey = self.voi.apply(values) / self.voi.top
        else:
            grey = apply_window(values, self.voi)
        level = np.rint(np.nan_to_num(1 - grey if self.is_inverted else grey) * 255).astype(np.uint8)
        if self.black:
            level[(stored >= self.black[0]) & (stored <= self.black[1])] = 0
        return level


def look_up(table: Array, index: Array) -> Array:
    """``table[index]``, same shape as ``index``; in blocks that stay in the cache, three times as fast as at once."""
    flat = np.ascontiguousarray(index).reshape(-1)
    found = np.empty(flat.shape, table.dtype)
    for start in range(0, flat.size, BLOCK):
        block = slice(start, start + BLOCK)
        np.take(table, flat[block], out=found[block], mode="clip")  # which needs no buffer; every index is inside
    return found.reshape(index.shape)


def apply_window(values: Array, window: Window) -> Array:
    """Rescaled values (floating point) as grey from 0 to 1, by PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values - center) / width, -80, 80)  # within float32
        return 1 / (1 + np.exp(exponent))
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1
    if width == 0:
        return np.where(values > center, 1.0, 0.0)
    return np.clip((values - center) / width + 0.5, 0, 1)


def percentile_window(values: Array, is_padding: Array | None) -> Window:
    """A window over the middle 99 % of the values that are not padding."""
    known = values if is_padding is None or is_padding.all() else values[~is_padding]
    known = known[np.isfinite(known)]
    if not known.size:
        return Window(0, 1, "LINEAR_EXACT", "percentile")
    low, high = (float(edge) for edge in np.percentile(known, PERCENTILES))
    if high <= low:
        low, high = float(known.min()), float(known.max())
    if high <= low:
        high = low + 1  # one grey level only: shown black
    return Window((low + high) / 2, high - low, "LINEAR_EXACT", "percentile")


def padding_range(dtype: np.dtype[Any], value: float | None, limit: float | None) -> tuple[float, float] | None:
    """The stored values from Pixel Padding Value to Pixel Padding Range Limit; None without padding.

    Either sign may stand in the header whatever the sign of the pixels is, so integers are taken in the pixels' type.
    """
    if value is None:
        return None
    ends = np.array([value, value if limit is None else limit])
    if dtype.kind in "iu":
        ends = ends.astype(np.int64).astype(dtype)
    return float(ends.min()), float(ends.max())


def is_within(stored: Array, edges: tuple[float, float] | None) -> Array | None:
    """Which stored values lie in the padding range; None when there is none."""
    return None if edges is None else (stored >= edges[0]) & (stored <= edges[1])


def colour_to_8_bit(colour: Array, bits: int) -> Array:
    """[height, width, 3] of ``bits`` significant bits as uint8."""
    if bits == 8 and colour.dtype == np.uint8:
        return colour
    top = float(2**bits - 1)
    return np.rint(np.clip(colour.astype(np.float64) / top, 0, 1) * 255).astype(np.uint8)


def palette_to_8_bit(stored: Array, tables: list[LookupTable]) -> Array:
    """[height, width] of indices as [height, width, 3] uint8; the entries tell their bits, descriptors often err."""
    colour = np.stack([table.apply(stored) for table in tables], axis=-1)
    is_wide = max(int(table.entries.max()) for table in tables) > 255
    return (colour // 256 if is_wide else colour).astype(np.uint8)


def partial_ybr_to_rgb(colour: Array) -> Array:
    """YBR_PARTIAL (luma from 16 to 235, chroma from 16 to 240) as RGB, uint8; ITU-R BT.601, PS3.3 C.7.6.3.1.2."""
    luma = 255 / 219 * (colour[..., 0].astype(np.float32) - 16)
    blue, red = (255 / 224 * (colour[..., plane].astype(np.float32) - 128) for plane in (1, 2))
    rgb = luma + 1.402 * red, luma - 0.344136 * blue - 0.714136 * red, luma + 1.772 * blue
    return np.rint(np.clip(np.stack(rgb, axis=-1), 0, 255)).astype(np.uint8)
