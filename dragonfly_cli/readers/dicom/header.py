"""What a DICOM header says about showing its pixels, frame by frame: scale, rescale, window, tables, padding.

Everything is looked up in the functional groups of multi-frame objects first, then in the data set itself.
No value that could identify a patient is read here. Non-goals: arithmetic on pixels (``display``).
"""

import math
import zlib
from collections.abc import Iterator
from typing import Any, BinaryIO

import numpy as np
import pydicom
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import (
    UID,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    UID_dictionary,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.dicom import terms
from dragonfly_cli.readers.dicom.choices import Window
from dragonfly_cli.readers.dicom.display import LookupTable, Modality, Rescale
from dragonfly_cli.readers.dicom.places import Place

DEFER_BYTES = 2**18  # larger elements, the pixels above all, are read only when asked for
META_BYTES = 4096
MAX_INFLATED_BYTES = 2**30
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
NOT_PICTURES = (
    "Segmentation Storage",
    "Label Map Segmentation Storage",
    "RT Dose Storage",
    "MR Spectroscopy Storage",
)
NOT_PICTURE_MODALITIES = ("SEG", "RTDOSE")
COLOURS = ("Red", "Green", "Blue")
EMISSION = ("PT", "NM")  # whose values are counts, without a greatest one
# Angiography and fluoroscopy, whose modality LUT leads back to X-ray intensity and is not for display (C.8.7.1.1.2).
LUT_NOT_FOR_DISPLAY = (XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage)


def read_header(place: Place) -> Dataset:
    """The data set with its large elements left on disk. Raises what pydicom raises, and InputError."""
    with place.opener() as file:
        refuse_inflation(file, place.label)
        if place.path is None:
            return pydicom.dcmread(file, force=True)
    header = pydicom.dcmread(place.path, force=True, defer_size=DEFER_BYTES)
    # The elements of a deflated data set have no place of their own in the file.
    return header if has_place(header) else pydicom.dcmread(place.path)


def is_deflated(head: bytes) -> bool:
    """Whether the file meta information at the start of a file says that the data set is one compressed stream."""
    return DeflatedExplicitVRLittleEndian.encode() in head[:META_BYTES]


def refuse_inflation(file: BinaryIO, label: str) -> None:
    """Raises InputError for a deflated data set that would fill the memory; else ``file`` is at its start again."""
    head = file.read(META_BYTES)
    start = head.find(b"\x02\0\0\0UL\4\0", 128)
    if is_deflated(head) and start >= 0:
        _measure_inflated(file, head, start, label)
    file.seek(0)


def _measure_inflated(file: BinaryIO, head: bytes, start: int, label: str) -> None:
    file.seek(start + 12 + int.from_bytes(head[start + 8 : start + 12], "little"))
    inflate, size = zlib.decompressobj(-zlib.MAX_WBITS), 0
    while size <= MAX_INFLATED_BYTES and (chunk := inflate.unconsumed_tail or file.read(2**16)):
        size += len(inflate.decompress(chunk, 2**22))
    if size > MAX_INFLATED_BYTES:
        limit = f"more than {MAX_INFLATED_BYTES // 2**20} MiB when decompressed"
        raise InputError(f"cannot read {label}: its data set takes {limit}", "copy or export the file again")


def has_place(header: Dataset) -> bool:
    """Whether offsets in the data set are offsets in the file."""
    return syntax_of(header) != DeflatedExplicitVRLittleEndian


def has_syntax(header: Dataset) -> bool:
    return bool(getattr(header, "file_meta", {}).get("TransferSyntaxUID"))


def syntax_of(header: Dataset) -> UID:
    """The transfer syntax; for a file without meta information the one that reading it has shown."""
    if has_syntax(header):
        return UID(header.file_meta.TransferSyntaxUID)
    is_implicit, is_little = header.original_encoding
    if is_implicit:
        return ImplicitVRLittleEndian
    return ExplicitVRLittleEndian if is_little else ExplicitVRBigEndian


def is_complete(header: Dataset, photometric: str) -> bool:
    """Whether pydicom can decode the file as it is."""
    return has_syntax(header) and header.get("PhotometricInterpretation") == photometric and not _left_out(header)


def completed(header: Dataset, photometric: str) -> Dataset:
    """The data set with what decoding wants and old files leave out, or write otherwise."""
    if not has_syntax(header):
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = syntax_of(header)
    header.PhotometricInterpretation = photometric
    header.SamplesPerPixel = header.get("SamplesPerPixel", 1)
    header.update(_left_out(header))
    return header


def is_signed(header: Dataset) -> bool:
    """Whether stored integers may be negative; colours are not, nor indices of a palette that begins at 0 or above."""
    if header.get("PixelRepresentation") != 1:
        return False
    if terms.photometric(code_of(header, "PhotometricInterpretation")) != "PALETTE COLOR":
        return int(header.get("SamplesPerPixel") or 1) == 1
    first = int((header.get("RedPaletteColorLookupTableDescriptor") or (0, 0))[1])
    return first < 0 or first > 32767  # which is a negative number that was written as an unsigned one


def _left_out(header: Dataset) -> Dataset:
    """What pixels of integers must have said of them and is left out or cannot be, as other viewers take it."""
    missing = Dataset()
    if "PixelData" not in header:
        return missing
    usual = {"PixelRepresentation": 0, "BitsStored": int(header.get("BitsAllocated") or 0)}
    if int(header.get("SamplesPerPixel") or 1) > 1:
        usual["PlanarConfiguration"] = 0
    for keyword, value in usual.items():
        if header.get(keyword) in (None, ""):
            setattr(missing, keyword, value)
    if header.get("PixelRepresentation") == 1 and not is_signed(header):
        missing.PixelRepresentation = 0
    return missing


def known_name(uid: object) -> str | None:
    """The standard's name for a UID; None for a private one, which may be made of anything."""
    return str(UID_dictionary[str(uid)][0]) if str(uid) in UID_dictionary else None


def is_overlay_of_others(sop_class: object, modality: str) -> bool:
    """Whether an object has rows and columns, but what they hold is marks or doses for other pictures, or spectra."""
    return known_name(sop_class) in NOT_PICTURES or modality in NOT_PICTURE_MODALITIES


def is_empty(header: Dataset, keyword: str) -> bool:
    """Whether an element has no value, without reading it from disk."""
    element = header.get_item(keyword)
    length = getattr(element, "length", None)  # only elements that are not parsed yet have one
    return length == 0 if length is not None else not getattr(element, "value", None)


def code_of(header: Dataset, keyword: str) -> str:
    """A code word, in capitals; for comparing, and shown only as ``terms`` allows."""
    return str(header.get(keyword) or "").strip().upper()


def pixel_elements(header: Dataset) -> Dataset:
    """A data set of the elements that describe pixels (group 0028), with the transfer syntax."""
    some = header.group_dataset(0x0028)
    some.update(_left_out(header))
    some.file_meta = FileMetaDataset()
    some.file_meta.TransferSyntaxUID = syntax_of(header)
    return some


def levels_of(header: Dataset, frame: int, group: str) -> Iterator[Dataset]:
    """Where elements of ``group`` may stand: one frame's functional group, the shared one, the data set."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in [*(per_frame[frame : frame + 1]), *shared[:1]]:
        yield from (groups.get(group) or [])[:1]
    yield header


def frame_element(header: Dataset, frame: int, group: str, keyword: str) -> Any:
    """An element at the first of ``levels_of`` that has a value for it; else None."""
    for level in levels_of(header, frame, group):
        value = level.get(keyword)
        if value not in (None, "") and value != []:
            return value
    return None


def spacing_of(header: Dataset, frame: int, keyword: str = "PixelSpacing") -> tuple[float, float] | None:
    """Millimetres between rows and between columns."""
    try:
        numbers = _numbers(frame_element(header, frame, "PixelMeasuresSequence", keyword))
    except ValueError:  # pydicom's, of what is no number
        return None
    if len(numbers) != 2 or not all(0 < number < math.inf for number in numbers):
        return None
    return numbers[0], numbers[1]


def pixel_shape(header: Dataset, frame: int) -> float:
    """The height of a pixel divided by its width; 1 when the file does not say."""
    for keyword in ("PixelSpacing", "ImagerPixelSpacing", "NominalScannedPixelSpacing"):
        if spacing := spacing_of(header, frame, keyword):
            return spacing[0] / spacing[1]
    ratio = _numbers(header.get("PixelAspectRatio"))  # vertical, horizontal
    return ratio[0] / ratio[1] if len(ratio) == 2 and min(ratio) > 0 else 1.0


def rescale_of(header: Dataset, frame: int) -> Rescale | None:
    """The slope and intercept of a frame, either of which may be left out; None when the file gives neither."""
    group = "PixelValueTransformationSequence"
    slope = frame_element(header, frame, group, "RescaleSlope")
    intercept = frame_element(header, frame, group, "RescaleIntercept")
    if slope is None and intercept is None:
        return None
    rescale = Rescale(1.0 if slope is None else float(slope), 0.0 if intercept is None else float(intercept))
    if not (math.isfinite(rescale.slope) and math.isfinite(rescale.intercept)):
        raise ValueError("a rescale that is no number")
    return rescale


def is_hounsfield(header: Dataset, frame: int) -> bool:
    """Whether rescaled values are Hounsfield units: without a rescale those of a CT are not known to be."""
    kind = frame_element(header, frame, "PixelValueTransformationSequence", "RescaleType")
    is_ct = code_of(header, "Modality") == "CT" and rescale_of(header, frame) is not None
    return is_ct and str(kind or "HU").strip().upper() in ("HU", "HU_MOD")


def modality_of(header: Dataset, frame: int) -> Modality:
    """The modality LUT of the data set, else the rescale of the frame, else none."""
    tables = _tables_of(header, header.get("ModalityLUTSequence"))
    if tables and header.get("SOPClassUID") not in LUT_NOT_FOR_DISPLAY:
        return tables[0].for_signed(header.get("PixelRepresentation") == 1)
    return rescale_of(header, frame) or Rescale()


def voi_of(header: Dataset, frame: int) -> tuple[list[LookupTable], list[Window]]:
    """The VOI tables and the usable windows of the first of ``levels_of`` that has any of them."""
    for level in levels_of(header, frame, "FrameVOILUTSequence"):
        tables, windows = _tables_of(header, level.get("VOILUTSequence")), _windows_of(level)
        if tables or windows:
            return [table.for_signed(_reaches_below_zero(header, frame)) for table in tables], windows
    return [], []


def names_window(header: Dataset, frame: int) -> bool:
    """Whether the file says anything about a window, usable or not."""
    return any(not is_empty(level, "WindowCenter") for level in levels_of(header, frame, "FrameVOILUTSequence"))


def _windows_of(level: Dataset) -> list[Window]:
    try:
        centers, widths = _numbers(level.get("WindowCenter")), _numbers(level.get("WindowWidth"))
    except ValueError:  # one of the values is no number
        return []
    name = str(level.get("VOILUTFunction") or "LINEAR").strip().upper()
    function = name if name in FUNCTIONS else "LINEAR"
    windows = [Window(*pair, function) for pair in zip(centers, widths, strict=False)]  # type: ignore[arg-type]
    return [window for window in windows if window.is_usable]


def _reaches_below_zero(header: Dataset, frame: int) -> bool:
    """Whether the values that a VOI table is applied to can be negative."""
    modality = modality_of(header, frame)
    if isinstance(modality, LookupTable):
        return False
    bits = int(header.get("BitsStored") or 16)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if header.get("PixelRepresentation") == 1 else (0, 2**bits - 1)
    return min(end * modality.slope + modality.intercept for end in ends) < 0


def palette_tables(header: Dataset) -> list[LookupTable]:
    """Red, green and blue; empty when the palette is segmented or missing."""
    tables = []
    for colour in COLOURS:
        data = header.get(f"{colour}PaletteColorLookupTableData")
        descriptor = header.get(f"{colour}PaletteColorLookupTableDescriptor")
        if data is None or descriptor is None:
            return []
        tables.append(_table(header, descriptor, data).for_signed(is_signed(header)))
    return tables


def padding_of(header: Dataset) -> tuple[float | None, float | None]:
    """Pixel Padding Value and Pixel Padding Range Limit, in stored values."""
    value, limit = (
        next((header.get(kind + keyword) for kind in ("", "Float", "DoubleFloat") if kind + keyword in header), None)
        for keyword in ("PixelPaddingValue", "PixelPaddingRangeLimit")
    )
    return (value if isinstance(value, int | float) else None), (limit if isinstance(limit, int | float) else None)


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, str | int | float) else list(value)
    return [float(number) for number in values]


def _tables_of(header: Dataset, sequence: Any) -> list[LookupTable]:
    items = [item for item in sequence or [] if item.get("LUTData") is not None and item.get("LUTDescriptor")]
    return [_table(header, item.LUTDescriptor, item.LUTData) for item in items]


def _table(header: Dataset, descriptor: Any, data: Any) -> LookupTable:
    count, first, bits = (int(number) for number in descriptor)
    count = count or 2**16  # 0 stands for 65536, which its 16 bits cannot hold
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] is not False else ">"
        data = np.frombuffer(data, np.dtype(f"{order}u2") if len(data) >= 2 * count else np.uint8)
    entries = np.atleast_1d(np.asarray(data)).astype(np.int64)[:count]
    if 2 * entries.size >= count > entries.size and bits <= 8:  # two entries in each word
        entries = np.frombuffer(entries.astype("<u2").tobytes(), np.uint8).astype(np.int64)[:count]
    if entries.size < count:
        raise ValueError("a lookup table that is cut short")
    return LookupTable(first, bits, entries)
