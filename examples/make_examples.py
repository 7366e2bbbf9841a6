"""Make the example inputs beside this file: two slides, a radiograph and the slices of a CT series.

    python examples/make_examples.py

Everything is drawn from fixed seeds: no patient was ever near these images, and nothing in them is a finding.
`slide.svs` is benign tissue; `slide_necrosis.svs` holds a focus of tumour and one of necrosis, whose places
`slide_necrosis.json` states.
"""

import json
import sys
from pathlib import Path

import numpy as np
import tifffile
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

sys.path.insert(0, str(Path(__file__).parents[1]))  # a program's own folder is not where `examples` is found
from examples.phantoms import draw_chest_slices, draw_film
from examples.tissue import Focus, draw_tissue

HERE = Path(__file__).parent
SLIDE_WH = (4096, 3072)
MICRONS_PER_PIXEL = 0.5
LEVEL_FACTORS = (4, 16)
QUALITY = 80
FOCI = (Focus("tumour", (660, 720), 260), Focus("necrosis", (1360, 820), 280))
SLIDES: dict[str, tuple[int, tuple[Focus, ...]]] = {"slide.svs": (5, ()), "slide_necrosis.svs": (19, FOCI)}
UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's own, for things without an owner
SLICE_SPACING_MM = 20
PIXEL_SPACING_MM = 3


def write_slide(path: Path, seed: int, foci: tuple[Focus, ...]) -> None:
    """An Aperio-style pyramid: level 0, a thumbnail, two further levels."""
    base = draw_tissue(SLIDE_WH, MICRONS_PER_PIXEL, seed, foci, on_glass=True)
    width, height = base.size
    text = f"Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q={QUALITY}"
    text += f"|AppMag = 20|MPP = {MICRONS_PER_PIXEL:.4f}|Filename = synthetic"
    thumbnail = base.resize((width // 8, height // 8), Image.Resampling.BOX)
    levels = [base.resize((width // by, height // by), Image.Resampling.BOX) for by in LEVEL_FACTORS]
    with tifffile.TiffWriter(path) as tiff:
        for image, is_tiled in [(base, True), (thumbnail, False), *((level, True) for level in levels)]:
            tiff.write(
                np.asarray(image),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": QUALITY},
                description=text,
                metadata=None,
                software=False,
                tile=(256, 256) if is_tiled else None,
                rowsperstrip=None if is_tiled else 16,
            )


def write_places(path: Path, foci: tuple[Focus, ...]) -> None:
    """Where the foci are, as boxes x, y, width, height in level-0 pixels."""
    places = [
        {"kind": focus.kind, "box": [round(side / MICRONS_PER_PIXEL) for side in box_um(focus)]} for focus in foci
    ]
    path.write_text(json.dumps(places, indent=1) + "\n")


def box_um(focus: Focus) -> tuple[float, float, float, float]:
    (x, y), radius = focus.centre_um, focus.radius_um
    return x - radius, y - radius, 2 * radius, 2 * radius


def write_film(path: Path) -> None:
    """A 12-bit MONOCHROME1 film: what attenuates most has the lowest value, and is to be shown white."""
    stored = np.rint(3600 - 3300 * draw_film()).astype("<u2")
    film = new_image(stored, "CR", "1.2.840.10008.5.1.4.1.1.1")  # Computed Radiography Image Storage
    film.SOPInstanceUID, film.SeriesInstanceUID, film.StudyInstanceUID = (UID_ROOT + last for last in "123")
    film.ViewPosition = "PA"
    film.PhotometricInterpretation, film.PixelRepresentation = "MONOCHROME1", 0
    film.BitsStored, film.HighBit = 12, 11
    film.PixelSpacing = [1.0, 1.0]
    film.WindowCenter, film.WindowWidth = 2100, 3200
    film.save_as(path, enforce_file_format=True)


def write_series(folder: Path) -> None:
    """The axial slices of one CT series from the top down, a file each."""
    folder.mkdir(exist_ok=True)
    for number, hounsfield in enumerate(draw_chest_slices(), start=1):
        stored = np.rint(hounsfield + 1024).clip(0, 4095).astype("<i2")
        image = new_image(stored, "CT", "1.2.840.10008.5.1.4.1.1.2")  # CT Image Storage
        image.SOPInstanceUID = f"{UID_ROOT}4.{number}"
        image.SeriesInstanceUID, image.StudyInstanceUID, image.FrameOfReferenceUID = (UID_ROOT + end for end in "567")
        image.InstanceNumber, image.SliceThickness = number, SLICE_SPACING_MM
        corner = -PIXEL_SPACING_MM * (len(stored) - 1) / 2
        image.ImagePositionPatient = [corner, corner, -SLICE_SPACING_MM * (number - 1)]
        image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
        image.PixelSpacing = [PIXEL_SPACING_MM, PIXEL_SPACING_MM]
        image.PhotometricInterpretation, image.PixelRepresentation = "MONOCHROME2", 1
        image.BitsStored, image.HighBit = 16, 15
        image.RescaleSlope, image.RescaleIntercept, image.RescaleType = 1, -1024, "HU"
        image.WindowCenter, image.WindowWidth = 40, 400
        image.save_as(folder / f"slice_{number:02d}.dcm", enforce_file_format=True)


def new_image(stored: np.ndarray, modality: str, sop_class: str) -> Dataset:
    """What every example in DICOM says, around 16-bit pixels [rows, columns]."""
    image = Dataset()
    image.SOPClassUID = sop_class
    image.PatientName, image.PatientID = "Synthetic^Example", "EXAMPLE"
    image.Modality, image.BodyPartExamined = modality, "CHEST"
    image.SamplesPerPixel, image.BitsAllocated = 1, 16
    image.Rows, image.Columns = stored.shape
    image.PixelData = stored.tobytes()
    image.file_meta = FileMetaDataset()
    image.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    return image


def main(folder: Path = HERE) -> None:
    for name, (seed, foci) in SLIDES.items():
        write_slide(folder / name, seed, foci)
    write_places(folder / "slide_necrosis.json", FOCI)
    write_film(folder / "radiograph.dcm")
    write_series(folder / "series")


if __name__ == "__main__":
    main()
