"""DICOM series made on the spot, whose grey tells where a slice lies. Plain helpers, no fixtures."""

import shutil
from pathlib import Path

import numpy as np
from make_files import write_dicom

from dragonfly_cli.geometry import Box

AXIAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "PixelSpacing": [1, 1]}


def write_slice(path: Path, height: float, uid: str = "1.2.3", **elements) -> Path:
    """A CT slice of one grey value, which tells its height: 0 is black, 100 white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((32, 48), round(height), np.int16)
    given = {
        **CT,
        "SeriesInstanceUID": uid,
        "ImageOrientationPatient": AXIAL,
        "ImagePositionPatient": [0, 0, height],
        "SOPInstanceUID": f"{uid}.{abs(hash((path.name, height))) % 10**9}",
    } | elements
    return write_dicom(path, pixels, window=(50.5, 101), **given)


def write_ct(folder: Path) -> Path:
    """Ten slices whose names and numbers run against their position."""
    for number in range(10):
        write_slice(folder / f"IM{number}", 100 - 10 * number, InstanceNumber=number)
    return folder


def heights(source) -> list[int]:
    """The grey of every frame, as the height that the slice was written with."""
    box = Box(0, 0, *source.size_wh)
    return [round(float(np.asarray(source.view(box, frame))[0, 0, 0]) / 2.55) for frame in range(source.frames)]


def packed(study: Path, kind: str) -> Path:
    """A ``zip``, ``tar`` or ``tgz`` of a folder, beside it."""
    return Path(shutil.make_archive(str(study), {"tgz": "gztar"}.get(kind, kind), study))
