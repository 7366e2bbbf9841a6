"""Small input files made on the spot: what a user's folder may hold, sound or broken. Plain helpers, no fixtures."""

import struct
from pathlib import Path
from typing import Any

import numpy as np
import tifffile
from PIL import Image, ImageCms
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

SHARED_DATA = Path(__file__).parents[2] / "shared" / "data"  # real images beside the checkout, where there are any
GOLDEN = Path(__file__).parent / "golden"  # numbers and small checkpoints of the reference
SECONDARY_CAPTURE = "1.2.840.10008.5.1.4.1.1.7"
WHOLE_SLIDE = "1.2.840.10008.5.1.4.1.1.77.1.6"
TILE_PX = 256


def tissue_like(size_wh: tuple[int, int], seed: int = 0) -> np.ndarray:
    """White glass with a smooth pink middle, [height, width, 3] uint8."""
    width, height = size_wh
    y, x = np.mgrid[0:height, 0:width]
    distance = ((x - width / 2) / (width * 0.4)) ** 2 + ((y - height / 2) / (height * 0.4)) ** 2
    noise = np.random.default_rng(seed).integers(-12, 13, (height, width, 1))
    tissue = np.array([205, 120, 170]) + noise
    return np.where((distance < 1)[..., None], tissue, 244).clip(0, 255).astype(np.uint8)


def write_svs(
    path: Path,
    size_wh: tuple[int, int] = (2000, 1500),
    *,
    pixels: np.ndarray | None = None,
    downsamples: tuple[int, ...] = (4,),
    mpp: float | None = 0.5,
    power: int | None = None,
    quality: int = 90,
) -> Path:
    """A tiled JPEG slide that OpenSlide opens as ``aperio``; ``pixels`` is [height, width, 3] uint8.

    ``downsamples`` are the levels beside level 0: an empty tuple makes a slide of one level.
    """
    base = Image.fromarray(tissue_like(size_wh) if pixels is None else pixels)
    width, height = base.size
    scale = "" if mpp is None else f"|AppMag = 20|MPP = {mpp}"
    scale += "" if power is None else f"|AppMag = {power}"
    head = f"Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q={quality}"
    with tifffile.TiffWriter(path, bigtiff=width * height > 10**9) as tiff:
        _write_page(tiff, base, head + scale, quality, is_tiled=True)
        thumbnail = base.resize((max(1, width // 8), max(1, height // 8)))
        _write_page(tiff, thumbnail, head + scale, quality, is_tiled=False)
        for factor in downsamples:
            level = base.resize((max(1, width // factor), max(1, height // factor)), Image.Resampling.BOX)
            _write_page(tiff, level, head + scale, quality, is_tiled=True)
    return path


SCN = """<?xml version="1.0"?>
<scn xmlns="http://www.leica-microsystems.com/scn/2010/10/01"><collection name="c" sizeX="{whole_w}" sizeY="{whole_h}">
<image name="i"><device model="m" version="1"/>
<pixels sizeX="{px_w}" sizeY="{px_h}"><dimension sizeX="{px_w}" sizeY="{px_h}" r="0" ifd="0"/></pixels>
<view sizeX="{view_w}" sizeY="{view_h}" offsetX="{left}" offsetY="{top}" spacingZ="0"/>
<scanSettings><objectiveSettings><objective>20</objective></objectiveSettings><illuminationSettings>
<numericalAperture>0.4</numericalAperture><illuminationSource>brightfield</illuminationSource></illuminationSettings>
</scanSettings></image></collection></scn>"""  # lengths in nanometres, but for px


def write_scn(path: Path, pixels: np.ndarray, origin_xy: tuple[int, int], whole_wh: tuple[int, int]) -> Path:
    """A slide at 0.5 microns per pixel that OpenSlide opens as ``leica``: ``pixels`` lie at ``origin_xy``, its bounds.

    ``origin_xy`` and ``whole_wh`` are level-0 pixels.
    """
    height, width = pixels.shape[:2]
    lengths = {"whole_w": whole_wh[0], "whole_h": whole_wh[1], "view_w": width, "view_h": height}
    lengths |= {"left": origin_xy[0], "top": origin_xy[1]}
    text = SCN.format(px_w=width, px_h=height, **{name: 500 * length for name, length in lengths.items()})
    about = {"description": text, "metadata": None, "software": False, "resolution": (20_000, 20_000)}
    layout = {"photometric": "rgb", "tile": (TILE_PX, TILE_PX), "compression": "jpeg", "compressionargs": {"level": 95}}
    tifffile.imwrite(path, pixels, bigtiff=True, resolutionunit="CENTIMETER", **layout, **about)
    return path


def write_dicom(
    path: Path,
    pixels: np.ndarray,
    *,
    photometric: str = "MONOCHROME2",
    window: tuple[float, float] | None = None,
    bits_stored: int | None = None,
    **elements: Any,
) -> Path:
    """An uncompressed DICOM file of ``pixels``: [rows, columns], [rows, columns, 3], or with frames in front.

    ``window`` is (centre, width); ``elements`` are further elements by keyword, None removes one.
    """
    is_color = pixels.shape[-1] == 3 and photometric in ("RGB", "YBR_FULL")
    shape = pixels.shape[:-1] if is_color else pixels.shape
    dataset = Dataset()
    dataset.SOPClassUID = SECONDARY_CAPTURE
    dataset.SOPInstanceUID = generate_uid(entropy_srcs=[path.name])
    dataset.Modality = "OT"
    dataset.PatientName = "Nobody^Secret"  # must never be seen anywhere
    dataset.PatientID = "ID-4711-SECRET"
    dataset.PhotometricInterpretation = photometric
    dataset.Rows, dataset.Columns = shape[-2:]
    dataset.SamplesPerPixel = 3 if is_color else 1
    if is_color:
        dataset.PlanarConfiguration = 0
    if len(shape) == 3:
        dataset.NumberOfFrames = shape[0]
    dataset.BitsAllocated = pixels.dtype.itemsize * 8
    dataset.BitsStored = bits_stored or dataset.BitsAllocated
    dataset.HighBit = dataset.BitsStored - 1
    dataset.PixelRepresentation = int(pixels.dtype.kind == "i")
    if window is not None:
        dataset.WindowCenter, dataset.WindowWidth = window
    dataset.PixelData = pixels.astype(pixels.dtype.newbyteorder("<")).tobytes()
    for keyword, value in elements.items():
        if value is None:
            delattr(dataset, keyword)
        else:
            setattr(dataset, keyword, value)
    return save_dicom(path, dataset)


def save_dicom(path: Path, dataset: Dataset, syntax: str = ExplicitVRLittleEndian) -> Path:
    """Write a data set with preamble and file meta information."""
    dataset.file_meta = FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset.file_meta.MediaStorageSOPClassUID = dataset.SOPClassUID
    dataset.file_meta.MediaStorageSOPInstanceUID = dataset.SOPInstanceUID
    dataset.save_as(path, enforce_file_format=True)
    return path


def write_dicom_slide(path: Path, pixels: np.ndarray, series: str, instance: int) -> Path:
    """One level of one frame; all levels of a slide have ``series`` in common."""
    data = Dataset()
    data.SOPClassUID, data.SOPInstanceUID = WHOLE_SLIDE, generate_uid(entropy_srcs=[series, str(instance)])
    data.SeriesInstanceUID, data.StudyInstanceUID, data.FrameOfReferenceUID = series, series + ".1", series + ".2"
    data.Modality, data.PatientName, data.PatientID = "SM", "Nobody^Secret", "ID-4711-SECRET"
    data.ContainerIdentifier, data.SpecimenDescriptionSequence = "1", []
    data.ImageType = ["ORIGINAL", "PRIMARY", "VOLUME", "NONE"]
    data.Rows, data.Columns = pixels.shape[:2]
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = pixels.shape[:2]
    data.NumberOfFrames, data.SamplesPerPixel, data.PlanarConfiguration = 1, 3, 0
    data.PhotometricInterpretation, data.DimensionOrganizationType = "RGB", "TILED_FULL"
    data.BitsAllocated = data.BitsStored = 8
    data.HighBit, data.PixelRepresentation = 7, 0
    data.ImagedVolumeWidth, data.ImagedVolumeHeight, data.ImagedVolumeDepth = 0.128, 0.128, 0.001
    data.TotalPixelMatrixFocalPlanes = data.NumberOfOpticalPaths = 1
    data.ExtendedDepthOfField, data.FocusMethod, data.SpecimenLabelInImage = "NO", "AUTO", "NO"
    spacing = Dataset()
    spacing.PixelSpacing, spacing.SliceThickness = [0.128 / pixels.shape[0], 0.128 / pixels.shape[1]], 0.001
    shared = Dataset()
    shared.PixelMeasuresSequence = [spacing]
    data.SharedFunctionalGroupsSequence = [shared]
    optical = Dataset()
    optical.OpticalPathIdentifier = "0"
    data.OpticalPathSequence = [optical]
    data.ImageOrientationSlide = [0, -1, 0, -1, 0, 0]
    origin = Dataset()
    origin.XOffsetInSlideCoordinateSystem = origin.YOffsetInSlideCoordinateSystem = 0
    data.TotalPixelMatrixOriginSequence = [origin]
    data.PixelData = pixels.tobytes()
    return save_dicom(path, data)


def swapping_profile() -> bytes:
    """sRGB with red and blue exchanged, under another name."""
    raw: bytes = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    raw = raw.replace("sRGB".encode("utf-16-be"), "swap".encode("utf-16-be"))
    return raw.replace(b"rXYZ", b"????").replace(b"bXYZ", b"rXYZ").replace(b"????", b"bXYZ")


def grey_profile(gamma: float) -> bytes:
    """An ICC profile of greys that are light to the power of ``gamma`` less one: above 1 they are shown darker."""
    curve = b"curv" + struct.pack(">IIHH", 0, 1, round(gamma * 256), 0)
    return _profile(b"GRAY", b"XYZ ", kTRC=curve)


def ink_profile() -> bytes:
    """An ICC profile of CMYK whose cyan is printed red; of the other inks only black prints anything."""
    white, red, black = (255, 128, 128), (137, 208, 195), (0, 128, 128)  # 8-bit CIELab
    inks = [(index & 8, index & 1) for index in range(16)]  # cyan, black; the first ink changes slowest
    corners = bytes(level for cyan, key in inks for level in (black if key else red if cyan else white))
    identity = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x10000)
    head = struct.pack(">IBBBB9i", 0, 4, 3, 2, 0, *identity)
    table = b"mft1" + head + bytes(range(256)) * 4 + corners + bytes(range(256)) * 3
    return _profile(b"CMYK", b"Lab ", A2B0=table)


def _profile(space: bytes, connection: bytes, **tags: bytes) -> bytes:
    d50 = struct.pack(">3i", 0xF6D6, 0x10000, 0xD32D)
    tags = {"desc": b"desc" + struct.pack(">II", 0, 2) + b"x\0" + bytes(78), "wtpt": b"XYZ \0\0\0\0" + d50, **tags}
    at, table, data = 132 + 12 * len(tags), struct.pack(">I", len(tags)), b""
    for name, content in tags.items():
        table += name.encode() + struct.pack(">II", at + len(data), len(content))
        data += content + bytes(-len(content) % 4)
    kind = b"prtr" if space == b"CMYK" else b"mntr"
    head = struct.pack(">I4sI4s4s4s12s4s", at + len(data), b"", 0x02400000, kind, space, connection, b"", b"acsp")
    return head.ljust(68, b"\0") + d50.ljust(60, b"\0") + table + data


def write_png(path: Path, size_wh: tuple[int, int] = (40, 30), color: str = "red") -> Path:
    Image.new("RGB", size_wh, color).save(path, format="PNG")
    return path


def _write_page(tiff: Any, image: Image.Image, text: str, quality: int, *, is_tiled: bool) -> None:
    layout = {"tile": (TILE_PX, TILE_PX)} if is_tiled else {"rowsperstrip": 16}
    tiff.write(
        np.asarray(image),
        photometric="rgb",
        compression="jpeg",
        compressionargs={"level": quality},
        description=text,
        metadata=None,
        software=False,
        **layout,
    )
