"""From stored DICOM values to the 8 bits that a viewer would show: pure arithmetic on numpy arrays.

The order is that of DICOM PS3.3 C.7.6.3, C.11.1 and C.11.2: modality LUT or rescale, then VOI LUT or window, then
the inversion of MONOCHROME1, last. Values are float32 and never cast back to the stored type between the steps.
Rounding is to the nearest. Non-goals: presentation states, overlays, ICC profiles, decoding.
"""

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

Function = Literal["LINEAR", "LINEAR_EXACT", "SIGMOID"]
Array = np.ndarray[Any, np.dtype[Any]]
PERCENTILES = (0.5, 99.5)  # leaves out the markers and dead pixels that a minimum and maximum would follow


@dataclass(frozen=True)
class Window:
    """A VOI window in rescaled units (Hounsfield units for CT), and where it comes from."""

    center: float
    width: float
    function: Function = "LINEAR"
    origin: Literal["file", "default", "percentile", "option"] = "file"

    @property
    def is_usable(self) -> bool:
        """PS3.3 C.11.2.1.2 wants a LINEAR width of at least 1, and 1 is a threshold that leaves no greys."""
        return self.width > (1 if self.function == "LINEAR" else 0)


CT_DEFAULT = Window(40, 400, origin="default")  # soft tissue


@dataclass(frozen=True)
class LookupTable:
    """A modality or VOI LUT: ``entries[0]`` answers ``first`` and all below it, the last entry all above."""

    first: int
    bits: int
    entries: Array  # [entries]

    def apply(self, values: Array) -> Array:
        """The entries for ``values``, float32, same shape."""
        index = np.rint(values).astype(np.int64) - self.first
        return self.entries.astype(np.float32)[np.clip(index, 0, len(self.entries) - 1)]

    def apply_signed(self, values: Array) -> Array:
        """As ``apply``, when ``first`` may be a negative number that the header gives as unsigned."""
        if self.first > 32767 and values.min() < 0:
            return LookupTable(self.first - 65536, self.bits, self.entries).apply(values)
        return self.apply(values)

    @property
    def top(self) -> int:
        """The entry shown as white; some tables hold more bits than their descriptor admits."""
        return max(2**self.bits - 1, int(self.entries.max()))


def rescale(values: Array, slope: float, intercept: float) -> Array:
    """Stored values times slope plus intercept, float32."""
    return values.astype(np.float32) * np.float32(slope) + np.float32(intercept)


def apply_window(values: Array, window: Window) -> Array:
    """Rescaled values as grey from 0 to 1, float32, by PS3.3 C.11.2.1.2 and C.11.2.1.3."""
    center, width = window.center, window.width
    if window.function == "SIGMOID":
        exponent = np.clip(-4 * (values.astype(np.float32) - center) / width, -80, 80)  # within float32
        return (1 / (1 + np.exp(exponent))).astype(np.float32)
    if window.function == "LINEAR":
        center, width = center - 0.5, width - 1
    scaled = values.astype(np.float32) - np.float32(center)
    scaled /= np.float32(width)
    scaled += np.float32(0.5)
    return np.clip(scaled, 0, 1, out=scaled)


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


def padding_mask(stored: Array, value: int | None, limit: int | None) -> Array | None:
    """Which stored values are Pixel Padding Value, or up to Pixel Padding Range Limit; None without padding."""
    if value is None or stored.dtype.kind not in "iu":
        return None
    # Either sign may stand in the header whatever the sign of the pixels is: compare in the pixels' own type.
    edges = np.array([value, value if limit is None else limit]).astype(stored.dtype)
    return (stored >= edges.min()) & (stored <= edges.max())


def gray_to_8_bit(gray: Array, inverted: bool) -> Array:
    """Grey from 0 to 1 as uint8; ``inverted`` for MONOCHROME1, whose lowest value is white."""
    level = np.nan_to_num(1 - gray if inverted else gray)
    return np.rint(level * 255).astype(np.uint8)


def color_to_8_bit(color: Array, bits: int) -> Array:
    """[height, width, 3] of ``bits`` significant bits as uint8."""
    if bits == 8 and color.dtype == np.uint8:
        return color
    top = float(2**bits - 1)
    return np.rint(np.clip(color.astype(np.float64) / top, 0, 1) * 255).astype(np.uint8)


def palette_to_8_bit(stored: Array, tables: list[LookupTable]) -> Array:
    """[height, width] of indices as [height, width, 3] uint8; an 8-bit palette may be stored in 16 bits."""
    color = np.stack([table.apply(stored) for table in tables], axis=-1)
    is_wide = tables[0].bits > 8 and max(int(table.entries.max()) for table in tables) > 255
    return (color // 256 if is_wide else color).astype(np.uint8)
