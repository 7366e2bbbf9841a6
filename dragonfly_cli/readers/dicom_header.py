"""What a DICOM header says about showing its pixels, frame by frame: scale, rescale, window, tables, padding.

Everything is looked up in the functional groups of multi-frame objects first, then in the data set itself.
No value that could identify a patient is read here. Non-goals: arithmetic on pixels (``dicom_display``).
"""

import logging
import math
import re
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

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
)

from dragonfly_cli.readers.dicom_display import LookupTable, Window

DEFER_BYTES = 2**18  # larger elements, the pixels above all, are read only when asked for
CODE = re.compile(r"[A-Z0-9_ ]{1,16}")  # the shape of DICOM's code strings; a value of another shape is not shown
FUNCTIONS = ("LINEAR", "LINEAR_EXACT", "SIGMOID")
COLORS = ("Red", "Green", "Blue")


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Hold back pydicom's warnings and log lines: they quote element values, which may be a patient's."""
    logger = logging.getLogger("pydicom")
    before, logger.disabled = logger.disabled, True
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.disabled = before


def read_header(path: Path) -> Dataset:
    """The data set with its large elements left on disk. Raises what pydicom raises."""
    header = pydicom.dcmread(path, force=True, defer_size=DEFER_BYTES)
    if syntax_of(header) == DeflatedExplicitVRLittleEndian:
        return pydicom.dcmread(path)  # its elements have no place of their own in the file
    return header


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


def with_syntax(header: Dataset) -> Dataset:
    """The data set with file meta information that names its transfer syntax, as decoding wants it."""
    if not has_syntax(header):
        header.file_meta = FileMetaDataset()
        header.file_meta.TransferSyntaxUID = syntax_of(header)
    return header


def known_name(uid: object) -> str | None:
    """The standard's name for a UID; None for a private one, which may be made of anything."""
    return str(UID_dictionary[str(uid)][0]) if str(uid) in UID_dictionary else None


def is_empty(header: Dataset, keyword: str) -> bool:
    """Whether an element has no value, without reading it from disk."""
    element = header.get_item(keyword)
    length = getattr(element, "length", None)  # only elements that are not parsed yet have one
    return length == 0 if length is not None else not getattr(element, "value", None)


def code_of(header: Dataset, keyword: str) -> str | None:
    value = str(header.get(keyword) or "")
    return value if CODE.fullmatch(value) else None


def frame_element(header: Dataset, frame: int, group: str, keyword: str) -> Any:
    """An element of one frame's functional ``group``, of the shared one, or of the data set; else None."""
    per_frame = header.get("PerFrameFunctionalGroupsSequence") or []
    shared = header.get("SharedFunctionalGroupsSequence") or []
    for groups in ([per_frame[frame]] if frame < len(per_frame) else []) + list(shared[:1]):
        items = groups.get(group) or []
        if items and items[0].get(keyword) not in (None, ""):
            return items[0].get(keyword)
    value = header.get(keyword)
    return None if value in ("", []) else value


def mpp_of(header: Dataset) -> tuple[float, float] | None:
    """Microns per pixel (x, y) from Pixel Spacing, which is millimetres (between rows, between columns)."""
    spacing = frame_element(header, 0, "PixelMeasuresSequence", "PixelSpacing")
    if spacing is None or isinstance(spacing, str | float) or len(spacing) != 2:
        return None
    row, column = (float(value) * 1000 for value in spacing)
    return (column, row) if 0 < row < math.inf and 0 < column < math.inf else None


def rescale_of(header: Dataset, frame: int) -> tuple[float, float] | None:
    """(slope, intercept), or None when the file gives none."""
    group = "PixelValueTransformationSequence"
    slope = frame_element(header, frame, group, "RescaleSlope")
    intercept = frame_element(header, frame, group, "RescaleIntercept")
    return None if slope is None or intercept is None else (float(slope), float(intercept))


def window_of(header: Dataset, frame: int) -> Window | None:
    """The first usable window of the frame, or None."""
    center, width, function = (
        frame_element(header, frame, "FrameVOILUTSequence", keyword)
        for keyword in ("WindowCenter", "WindowWidth", "VOILUTFunction")
    )
    centers, widths = _numbers(center), _numbers(width)
    if not centers or not widths:
        return None
    name = str(function or "LINEAR").upper()
    window = Window(centers[0], widths[0], name if name in FUNCTIONS else "LINEAR")  # type: ignore[arg-type]
    return window if window.is_usable else None


def modality_table(header: Dataset) -> LookupTable | None:
    return _table_of(header, header.get("ModalityLUTSequence"))


def voi_table(header: Dataset, frame: int) -> LookupTable | None:
    return _table_of(header, frame_element(header, frame, "FrameVOILUTSequence", "VOILUTSequence"))


def palette_tables(header: Dataset) -> list[LookupTable]:
    """Red, green and blue; empty when the palette is segmented or missing."""
    tables = []
    for color in COLORS:
        data = header.get(f"{color}PaletteColorLookupTableData")
        descriptor = header.get(f"{color}PaletteColorLookupTableDescriptor")
        if data is None or descriptor is None:
            return []
        tables.append(_table(header, descriptor, data))
    return tables


def padding_of(header: Dataset) -> tuple[int | None, int | None]:
    """Pixel Padding Value and Pixel Padding Range Limit, in stored values."""
    value, limit = header.get("PixelPaddingValue"), header.get("PixelPaddingRangeLimit")
    return (value if isinstance(value, int) else None), (limit if isinstance(limit, int) else None)


def _numbers(value: Any) -> list[float]:
    if value is None or value == "":
        return []
    values = [value] if isinstance(value, str | int | float) else list(value)
    return [float(number) for number in values]


def _table_of(header: Dataset, sequence: Any) -> LookupTable | None:
    if not sequence or sequence[0].get("LUTData") is None or sequence[0].get("LUTDescriptor") is None:
        return None
    return _table(header, sequence[0].LUTDescriptor, sequence[0].LUTData)


def _table(header: Dataset, descriptor: Any, data: Any) -> LookupTable:
    count, first, bits = (int(number) for number in descriptor)
    count = count or 2**16  # 0 stands for 65536, which its 16 bits cannot hold
    if isinstance(data, bytes):
        order = "<" if header.original_encoding[1] is not False else ">"
        data = np.frombuffer(data, np.dtype(f"{order}u2") if len(data) >= 2 * count else np.uint8)
    entries = np.atleast_1d(np.asarray(data)).astype(np.int64)[:count]
    if not entries.size:
        raise ValueError("a lookup table without entries")
    return LookupTable(first, bits, entries)
