"""What showing DICOM costs beside pydicom alone, each as a ratio of two things run side by side.

    python benchmarks/dicom.py [--side 2236] [--slices 300] [--rounds 5]

Display: from the stored values of a 12-bit film to 8 bits, against pydicom's ``apply_modality_lut`` and
``apply_voi_lut``; the two results are compared in grey levels of 255. Index: a CT series in a folder, headers only, to
slices in spatial order, against ``dcmread(stop_before_pixels=True)`` of the same files. One slice: how many files are
opened, and read to their pixels, to show one slice once the series is indexed. The best of the rounds is taken.
Prints one line per figure. Files are written to a temporary folder.
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed

from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.dicom.collection import places_in
from dragonfly_cli.readers.dicom.display import GrayWay
from dragonfly_cli.readers.dicom.header import modality_of, voi_of
from dragonfly_cli.readers.dicom.index import slices_of
from dragonfly_cli.readers.dicom.series import group
from dragonfly_cli.readers.dicom.volume import VolumeSource

CT_CLASS = "1.2.840.10008.5.1.4.1.1.2"


def make_slice(number: int, pixels: np.ndarray) -> Dataset:
    """A CT slice with a header of the usual length: some sixty elements."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID, data.SeriesInstanceUID = CT_CLASS, generate_uid(), "1.2.3.4"
    data.Modality, data.ImageType, data.InstanceNumber = "CT", ["ORIGINAL", "PRIMARY", "AXIAL"], number
    for keyword in ("StudyDate", "SeriesDate", "AcquisitionDate", "ContentDate"):
        setattr(data, keyword, "20200101")
    for keyword in ("StudyTime", "SeriesTime", "AcquisitionTime", "ContentTime"):
        setattr(data, keyword, "120000")
    for keyword in ("Manufacturer", "ManufacturerModelName", "StudyDescription", "SeriesDescription", "StationName"):
        setattr(data, keyword, "of no interest")
    for keyword in ("SliceThickness", "KVP", "DataCollectionDiameter", "ReconstructionDiameter", "GantryDetectorTilt"):
        setattr(data, keyword, 1.25)
    for keyword in ("ExposureTime", "XRayTubeCurrent", "Exposure", "GeneratorPower", "SeriesNumber"):
        setattr(data, keyword, 10)
    block = data.private_block(0x0019, "A MANUFACTURER", create=True)
    for offset in range(20):
        block.add_new(offset, "DS", "1.5")
    data.PixelSpacing, data.ImageOrientationPatient = [0.7, 0.7], [1, 0, 0, 0, 1, 0]
    data.ImagePositionPatient = [0, 0, -1.25 * number]
    data.Rows, data.Columns = pixels.shape
    data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 12, 11, 0
    data.RescaleSlope, data.RescaleIntercept, data.WindowCenter, data.WindowWidth = 1, -1024, 40, 400
    data.PixelData = pixels.astype("<u2").tobytes()
    return data


def write_series(folder: Path, count: int) -> None:
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 4096, (512, 512))
    for number in range(count):
        data = make_slice(number, pixels)
        data.file_meta = FileMetaDataset()
        data.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        data.save_as(folder / f"{number:04}.dcm", enforce_file_format=True)


def best_of(rounds: int, *ways: Callable[[], Any]) -> list[float]:
    """Seconds of each way, run in turn ``rounds`` times."""
    best = [float("inf")] * len(ways)
    for _ in range(rounds):
        for number, way in enumerate(ways):
            start = time.perf_counter()
            way()
            best[number] = min(best[number], time.perf_counter() - start)
    return best


def measure_display(side: int, rounds: int) -> None:
    stored = np.random.default_rng(0).integers(0, 4096, (side, side), dtype=np.uint16)
    header = make_slice(0, stored)
    way = GrayWay(modality_of(header, 0), voi_of(header, 0)[1][0])

    def by_pydicom() -> Any:
        return apply_voi_lut(apply_modality_lut(stored, header), header)

    ours, theirs = best_of(rounds, lambda: way.levels(stored), by_pydicom)
    low, high = -1024, 4095 - 1024
    difference = np.abs(way.levels(stored) - (by_pydicom() - low) / (high - low) * 255).max()
    print(f"display of {side} x {side}: ours {ours * 1000:.1f} ms, pydicom {theirs * 1000:.1f} ms")
    print(f"display, times faster (target 10): {theirs / ours:.1f}")
    print(f"display, largest difference in grey levels (target 1): {difference:.2f}")


def measure_index(folder: Path, rounds: int) -> None:
    files = sorted(folder.iterdir())

    def ours() -> Any:
        return group(each for place in places_in(folder) for each in slices_of(place))

    def theirs() -> Any:
        return [pydicom.dcmread(file, stop_before_pixels=True) for file in files]

    (series,) = ours()
    assert [each.number for each in series.slices] == list(range(len(files)))[::-1]  # sorted by position
    seconds, alone = best_of(rounds, ours, theirs)
    print(f"index of {len(files)} slices: ours {seconds:.2f} s, dcmread alone {alone:.2f} s")
    print(f"index, rate beside dcmread alone (target 0.8): {alone / seconds:.2f}")


def measure_one_slice(folder: Path) -> None:
    source = VolumeSource(folder, OpenOptions())
    opened: list[str] = []
    sys.addaudithook(lambda event, facts: opened.append(str(facts[0])) if event == "open" else None)
    start = time.perf_counter()
    source.view(Box(0, 0, *source.size_wh), source.frames // 2)
    seconds = time.perf_counter() - start
    slices = {path for path in opened if path.startswith(str(folder))}
    print(f"one slice: {seconds * 1000:.1f} ms, files opened (target 1): {len(slices)}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2236, help="pixels; 2236 squared is 2500 x 2000")
    parser.add_argument("--slices", type=int, default=300, help="of the series")
    parser.add_argument("--rounds", type=int, default=5)
    options = parser.parse_args()
    measure_display(options.side, options.rounds)
    with tempfile.TemporaryDirectory() as folder:
        write_series(Path(folder), options.slices)
        measure_index(Path(folder), options.rounds)
        measure_one_slice(Path(folder))


if __name__ == "__main__":
    main()
