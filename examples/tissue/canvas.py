"""The grid that a field is drawn on, in microns, and the noise that everything on it is made of."""

from dataclasses import dataclass

import numpy as np
from PIL import Image

Plane = np.ndarray  # [height, width] float32


@dataclass(frozen=True)
class Canvas:
    """The grid that one field is drawn on."""

    size_wh: tuple[int, int]
    microns_per_pixel: float
    rng: np.random.Generator

    @property
    def shape_hw(self) -> tuple[int, int]:
        return self.size_wh[1], self.size_wh[0]

    def places_um(self) -> tuple[Plane, Plane]:
        """x as a row and y as a column, microns at the pixels' centres."""
        width, height = self.size_wh
        x, y = (np.arange(0.5, count, dtype=np.float32) * self.microns_per_pixel for count in (width, height))
        return x[None, :], y[:, None]

    def noise(self, grain_um: float) -> Plane:
        """Soft noise from about 0 to 1 in blobs as wide as ``grain_um``; where they are below a pixel it fades."""
        width, height = self.size_wh
        grain_px = grain_um / self.microns_per_pixel
        if grain_px <= 1:
            return 0.5 + grain_px * (self.rng.random(self.shape_hw, np.float32) - 0.5)
        coarse = self.rng.random((int(height / grain_px) + 3, int(width / grain_px) + 3), np.float32)
        x, y = self.rng.random(2)
        box = (x, y, x + width / grain_px, y + height / grain_px)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC, box=box))

    def streaks(self, across_um: Plane, along_um: Plane, wide_um: float, long_um: float) -> Plane:
        """Noise drawn out along one coordinate, as fibres are: ``wide_um`` across, ``long_um`` along."""
        places = [(axis - axis.min()) / self.microns_per_pixel for axis in (across_um, along_um)]
        row, column = (place.astype(np.int32) for place in places)
        high, wide = int(row.max()) + 1, int(column.max()) + 1
        squeezed = Canvas((int(wide * wide_um / long_um) + 2, high), self.microns_per_pixel, self.rng).noise(wide_um)
        return np.asarray(Image.fromarray(squeezed).resize((wide, high), Image.Resampling.BILINEAR))[row, column]

    def step(self, distance_um: Plane, soft_um: float = 0.7) -> Plane:
        """0 where the distance is negative, 1 where it is positive, soft over a pixel or ``soft_um``."""
        return (distance_um / max(2 * soft_um, self.microns_per_pixel) + 0.5).clip(0, 1)
