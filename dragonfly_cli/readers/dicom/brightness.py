"""One window for all frames of an object or a series whose file gives none.

Stretched each by itself, the noise of an empty slice would be as bright as the uptake in the next one.
"""

from collections.abc import Callable
from contextlib import suppress

import numpy as np

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.dicom.choices import Window
from dragonfly_cli.readers.dicom.display import Array, percentile_window

FRAMES_MEASURED = 8
VALUES_OF_FRAME = 2**18


def shared_window(values_of: Callable[[int], Array], frames: int) -> Window | None:
    """The window over the middle values of a few frames, evenly spread over all; None where none has any.

    ``values_of`` gives a frame's values, or raises InputError for one that cannot be read.
    """
    few = min(FRAMES_MEASURED, frames)
    measured = [np.empty(0)]
    for number in range(few):
        with suppress(InputError):
            measured.append(values_of((2 * number + 1) * frames // (2 * few)))
    values = np.concatenate(measured)
    return percentile_window(values, None) if values.size else None


def thinned(stored: Array) -> Array:
    """[values] of a frame, evenly taken where there are more than a percentile needs."""
    return stored.reshape(-1)[:: max(1, stored.size // VALUES_OF_FRAME)]
