"""What a DICOM file looks like once it is opened, and what its pixels are made of. Plain helpers, no fixtures."""

from collections.abc import Iterable
from pathlib import Path
from typing import Any

import numpy as np
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import open_source

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)
CT_ELEMENTS = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}


def shown(path: Path, frame: int = 0) -> np.ndarray:
    """The display of a frame, [rows, columns, 3] uint8."""
    source = open_source(path)
    return np.asarray(source.view(Box(0, 0, *source.size_wh), frame))


def gray(path: Path, frame: int = 0) -> np.ndarray:
    """The same of a frame that is grey, [rows, columns]."""
    values = shown(path, frame)
    assert (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all()
    return values[..., 0]


def item(**elements: Any) -> Dataset:
    """A data set of these elements."""
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def table(entries: Iterable[int], first: int = 0, bits: int = 8) -> Sequence:
    """The sequence of a lookup table."""
    entries = list(entries)
    lut = item(LUTDescriptor=[len(entries), first, bits])
    lut.add_new("LUTData", "US", list(map(int, entries)))
    return Sequence([lut])
