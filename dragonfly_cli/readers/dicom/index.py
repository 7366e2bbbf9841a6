"""What a header says of where its pictures belong: series, position, orientation, size. No pixel is read.

Speed matters, a study has thousands of files: only the part before the window is parsed, in memory, and values are
taken from their raw bytes. Objects with several frames are read in full up to the pixels, for their functional groups.
"""

import math
from collections.abc import Iterable
from dataclasses import dataclass, replace
from io import BytesIO
from typing import Any

from pydicom.datadict import tag_for_keyword
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial

from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom.failures import in_own_words
from dragonfly_cli.readers.dicom.pixel_facts import PIXEL_KEYWORDS, room_for_frames
from dragonfly_cli.readers.dicom.places import Place, size_of

HEAD_BYTES = 2**16  # holds the header of nearly every single-frame file
LAST_TAG = 0x00280030  # Pixel Spacing: what is needed stands up to here
PIXEL_TAGS = {tag_for_keyword(keyword) for keyword in PIXEL_KEYWORDS}
LOCALIZER_WORDS = {"LOCALIZER", "SCOUT", "TOPOGRAM"}
GROUPS = ("PerFrameFunctionalGroupsSequence", "SharedFunctionalGroupsSequence")
Vector = tuple[float, ...]


@dataclass(frozen=True)
class Slice:
    """One frame of one file. Positions and directions are those of the patient's space, in millimetres.

    ``series``, ``patient``, ``study`` and ``instance_uid`` are for grouping only: they are never shown.
    """

    place: Place
    frame: int
    series: str
    patient: str
    study: str
    instance_uid: str
    modality: str  # as it stands there, in capitals
    size_wh: tuple[int, int]
    spacing: tuple[float, float] | None  # between rows, between columns
    orientation: Vector | None  # direction of a row, then of a column
    position: Vector | None
    number: int | None  # Instance Number
    is_localizer: bool

    @property
    def along_normal(self) -> float | None:
        """How far the slice lies along the normal of its plane."""
        if self.orientation is None or self.position is None:
            return None
        (a, b, c), (d, e, f) = self.orientation[:3], self.orientation[3:]
        normal = (b * f - c * e, c * d - a * f, a * e - b * d)
        return sum(x * y for x, y in zip(normal, self.position, strict=True))


def slices_of(place: Place) -> list[Slice]:
    """The frames of one file, none when it holds no picture. Raises InputError when it cannot be read."""
    with in_own_words(place.label, "its header is damaged or incomplete"):
        header, is_whole = header_up_to_pixels(place)
        if not is_whole:
            raise EOFError("it ends before the elements that stand next to its pixels")
        frames = _whole(header, "NumberOfFrames") or 1
        # An enhanced object may have one frame only; its place is in its functional groups all the same.
        if frames > 1 or ("NumberOfFrames" in header and "ImagePositionPatient" not in header):
            with place.opener() as file:
                header, pixel_bytes = _parsed_until_pixels(file)
            is_picture = bool(frames_in(header, place, 1))
            if is_picture and frames > room_for_frames(header, pixel_bytes, size_of(place)):
                raise ValueError("more frames than there is room for")
        return frames_in(header, place, frames)


def frames_in(header: Dataset, place: Place, frames: int) -> list[Slice]:
    """The frames of a data set that has been read already. Raises what pydicom raises."""
    if not _short(header, "Rows") or not _short(header, "Columns"):
        return []
    common = _common_facts(header, place)
    if header_of.is_overlay_of_others(_text(header, "SOPClassUID"), common["modality"]):
        return []
    slices = [Slice(frame=frame, **common, **_geometry(header, frame)) for frame in range(frames)]
    if common["series"]:
        return slices
    # Without a UID a folder is the best guess at what belongs together, of pictures that lie in space.
    lie_in_space = any(each.position or each.orientation for each in slices)
    guess = place.label.rpartition("/")[0] if lie_in_space else place.label
    return [replace(each, series=guess) for each in slices]


def header_up_to_pixels(place: Place) -> tuple[Dataset, bool]:
    """The data set up to ``LAST_TAG``, and whether there is something behind it, as there is in every complete file.

    Raises what pydicom raises, and InputError.
    """
    with place.opener() as file:
        head = file.read(HEAD_BYTES)
        if header_of.is_deflated(head):  # a part of it cannot be decompressed
            file.seek(0)
            header_of.refuse_inflation(file, place.label)
            return _parsed_until_last(file)
        header, is_enough = _parsed_until_last(BytesIO(head))
        if is_enough or len(head) < HEAD_BYTES:
            return header, is_enough
        file.seek(0)
        return _parsed_until_last(file)


def _parsed_until_last(file: Any) -> tuple[Dataset, bool]:
    """The data set up to ``LAST_TAG``, and whether that was reached."""
    reached = False

    def is_past(tag: int, vr: str | None, length: int) -> bool:
        nonlocal reached
        reached = int.__gt__(tag, LAST_TAG)  # pydicom's own comparison of tags takes a tenth of the whole time
        return reached

    try:
        return read_partial(file, stop_when=is_past, force=True), reached
    except EOFError:
        return Dataset(), False


def _parsed_until_pixels(file: Any) -> tuple[Dataset, int]:
    """The data set up to its pixels, and how many bytes the header says they take; 0 without any."""
    pixel_bytes = 0

    def is_at_pixels(tag: int, vr: str | None, length: int) -> bool:
        nonlocal pixel_bytes
        is_there = tag in PIXEL_TAGS
        pixel_bytes = length if is_there else 0
        return is_there

    return read_partial(file, stop_when=is_at_pixels, force=True), pixel_bytes


def _common_facts(header: Dataset, place: Place) -> dict[str, Any]:
    image_type = {word.strip().upper() for word in _texts(header, "ImageType")}
    return {
        "place": place,
        "series": _text(header, "SeriesInstanceUID"),
        "patient": _text(header, "PatientID").strip(),
        "study": _text(header, "StudyInstanceUID").strip(),
        "instance_uid": _text(header, "SOPInstanceUID"),
        "modality": _text(header, "Modality").strip().upper(),
        "size_wh": (_short(header, "Columns"), _short(header, "Rows")),
        "number": _whole(header, "InstanceNumber"),
        "is_localizer": bool(image_type & LOCALIZER_WORDS),
    }


def _geometry(header: Dataset, frame: int) -> dict[str, Any]:
    """Spacing, orientation and position, of the frame's functional groups where there are any."""
    if not any(sequence in header for sequence in GROUPS):
        spacing = _numbers(header, "PixelSpacing")
        orientation = _numbers(header, "ImageOrientationPatient")
        position = _numbers(header, "ImagePositionPatient")
    else:
        spacing = _group(header, frame, "PixelMeasuresSequence", "PixelSpacing")
        orientation = _group(header, frame, "PlaneOrientationSequence", "ImageOrientationPatient")
        position = _group(header, frame, "PlanePositionSequence", "ImagePositionPatient")
    return {
        "spacing": spacing if len(spacing) == 2 and min(spacing) > 0 else None,
        "orientation": orientation if len(orientation) == 6 and any(orientation) else None,
        "position": position if len(position) == 3 else None,
    }


def _group(header: Dataset, frame: int, group: str, keyword: str) -> Vector:
    try:
        return _finite(header_of.frame_element(header, frame, group, keyword) or ())
    except ValueError:  # pydicom's, of what is no number
        return ()


def _finite(values: Iterable[Any]) -> Vector:
    """The numbers, none of them where one says nothing or is none, for by such a one nothing can be sorted."""
    try:
        known = tuple(map(float, values))
    except ValueError:
        return ()
    return known if all(map(math.isfinite, known)) else ()


def _texts(header: Dataset, keyword: str) -> list[str]:
    """The values of a text element, from its raw bytes where it has not been parsed."""
    element = header.get_item(tag_for_keyword(keyword) or 0)
    value = getattr(element, "value", None)
    if isinstance(value, bytes):
        return value.decode("ascii", "replace").rstrip("\0 ").split("\\")
    if value is None or value == "":
        return []
    return [value] if isinstance(value, str) else [str(part) for part in value]


def _text(header: Dataset, keyword: str) -> str:
    return "\\".join(_texts(header, keyword))


def _numbers(header: Dataset, keyword: str) -> Vector:
    return _finite(text for text in _texts(header, keyword) if text.strip())


def _whole(header: Dataset, keyword: str) -> int | None:
    """An integer that is written as text."""
    numbers = _numbers(header, keyword)
    return int(numbers[0]) if numbers else None


def _short(header: Dataset, keyword: str) -> int:
    """An unsigned 16-bit element, 0 when it is missing."""
    element: Any = header.get_item(tag_for_keyword(keyword) or 0)
    if element is None:
        return 0
    if isinstance(element.value, bytes):
        return int.from_bytes(element.value[:2], "little" if element.is_little_endian else "big")
    return int(element.value or 0)
