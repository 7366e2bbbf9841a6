"""Whether what a file of a DICOM slide says of its tiles can be true: how many they are, where they lie, their colours.

OpenSlide believes all of it. It shows other tiles or colours then, and a wrong table of offsets ends the whole program.
Sources: PS3.5 annex A.4 (fragments and their tables), PS3.3 C.7.6.17.3 (tiles that are placed one by one).
"""

import os
import warnings
import zipfile
from dataclasses import dataclass
from functools import cached_property
from io import BytesIO
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.filereader import read_partial
from pydicom.tag import Tag
from pydicom.uid import JPEGBaseline8Bit, JPEGTransferSyntaxes

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.dicom.jpeg import JPEG_START, RGB_NAMES, has_end
from dragonfly_cli.readers.jpeg_damage import is_damaged
from dragonfly_cli.readers.pyramid import plan_tiles

_PER_FRAME_GROUPS = Tag("PerFrameFunctionalGroupsSequence")
_TAGS = (
    "Columns",
    "DimensionOrganizationType",
    "NumberOfFrames",
    "PhotometricInterpretation",
    "Rows",
    "TotalPixelMatrixColumns",
    "TotalPixelMatrixRows",
)
_PIXELS = b"\xe0\x7f\x10\0O"  # PixelData and the first letter of OB or OW
_EXTENDED_TABLE = b"\xe0\x7f\x01\0OV\0\0"
_PLACE = b"\x48\0\x1a\x02"  # PlanePositionSlideSequence
_ITEM = b"\xfe\xff\0\xe0"
_HEAD_BYTES = 8  # of an item: its tag and its length
_OF_UNKNOWN_LENGTH = 0xFFFFFFFF
_PIECE_BYTES = 2**20
_LOOKED_UP = 1000  # tiles of a file, spread over it; of fewer every one
_REACH_IN_ZIP_BYTES = 2**24  # all before the last of these is unpacked
_MOST_STREAM_BYTES = 2**26


@dataclass(frozen=True)
class JpegTiles:
    """The JPEG streams of a fully tiled level in its file, in the rows of its picture."""

    path: Path
    size_wh: tuple[int, int]
    tile_wh: tuple[int, int]
    start: int  # of what the offsets are counted from
    table: np.ndarray  # their offsets, or nothing

    def are_damaged(self, block: Box) -> bool:
        """Whether one that ``block`` touches has lost data in its middle, of which libjpeg does not tell."""
        inside = block.within(Box(0, 0, *self.size_wh))
        columns = -(-self.size_wh[0] // self.tile_wh[0])
        with self.path.open("rb") as file:
            tiles = plan_tiles(inside, self.tile_wh) if inside else ()
            return any(is_damaged(self._stream(file, row * columns + column)) for (column, row), _ in tiles)

    def _stream(self, file: BinaryIO, number: int) -> bytes:
        if number >= len(self._offsets):
            return b""  # which is told by who reads it
        file.seek(self.start + int(self._offsets[number]) + len(_ITEM))
        return file.read(min(_number(file.read(4)), _MOST_STREAM_BYTES))

    @cached_property
    def _offsets(self) -> np.ndarray:
        if self.table.size:
            return self.table
        found = []
        with self.path.open("rb") as file:
            file.seek(self.start)
            while (head := file.read(_HEAD_BYTES)).startswith(_ITEM):
                found.append(file.tell() - _HEAD_BYTES - self.start)
                file.seek(_number(head[len(_ITEM) :]), os.SEEK_CUR)
        return np.array(found, np.int64)


@dataclass(frozen=True)
class TileFacts:
    """What a file says of its tiles, held against what is there."""

    are_placed: bool = True  # there are as many as the picture needs, or each says where it lies
    has_table: bool = True  # of the places in the file where they begin
    fits_table: bool = True
    are_in_pieces: bool = False  # of several fragments each
    jpegs: JpegTiles | None = None
    is_rgb: bool = True  # by the header
    is_stored_as_rgb: bool = True  # by the first tile itself

    @property
    def suit_openslide(self) -> bool:
        are_found = self.fits_table and (self.has_table or not self.are_in_pieces)
        return are_found and self.are_placed and self.is_rgb == self.is_stored_as_rgb


def read_to_frames(file: BinaryIO, *keywords: str) -> Dataset:
    """The header of a DICOM file up to what it says of single frames, which may take seconds to parse.

    Of the elements at its root only those named. Raises what pydicom raises.
    """

    def is_reached(tag: Any, vr: str | None, length: int) -> bool:
        return bool(tag >= _PER_FRAME_GROUPS)

    return read_partial(file, is_reached, specific_tags=[Tag(keyword) for keyword in keywords])


def tile_facts(path: Path) -> TileFacts:
    """Of one file of a slide, which may lie in a zip. Raises what pydicom raises."""
    with warnings.catch_warnings(), path.open("rb") as file:
        warnings.simplefilter("ignore")  # pydicom's may quote a patient's name
        return _tile_facts(path, file)


def _tile_facts(path: Path, file: BinaryIO) -> TileFacts:
    header = read_to_frames(file, *_TAGS)
    syntax, is_rgb = header.file_meta.TransferSyntaxUID, header.PhotometricInterpretation == "RGB"
    if syntax.is_implicit_VR or not syntax.is_little_endian:
        return TileFacts()
    before = _read_to_pixels(file)
    are_placed = _are_placed(header, before)
    if _number(file.read(_HEAD_BYTES)[4:]) != _OF_UNKNOWN_LENGTH:
        return TileFacts(are_placed)
    file_bytes = path.stat().st_size
    table = file.read(_number(file.read(_HEAD_BYTES)[4:]))
    start = file.tell()
    offsets = _extended_table(before) if _EXTENDED_TABLE in before else np.frombuffer(table, "<u4").astype(np.int64)
    first_bytes = _number(file.read(_HEAD_BYTES)[4:])
    first = file.read(min(first_bytes, file_bytes))
    second = file.read(_HEAD_BYTES + len(JPEG_START))[_HEAD_BYTES:]
    is_cut = syntax in JPEGTransferSyntaxes and not has_end(first) and second not in (b"", JPEG_START)
    are_in_pieces = bool(offsets[1] != first_bytes + _HEAD_BYTES) if offsets.size > 1 else is_cut
    has_jpegs = syntax == JPEGBaseline8Bit and not are_in_pieces and not _is_sparse(header)
    return TileFacts(
        are_placed,
        has_table=offsets.size > 0,
        fits_table=offsets.size == 0 or _fits(file, offsets, start, file_bytes, _frames(header)),
        are_in_pieces=are_in_pieces,
        jpegs=JpegTiles(path, *_sizes(header), start, offsets) if has_jpegs else None,
        is_rgb=is_rgb,
        is_stored_as_rgb=_is_stored_as_rgb(first, is_rgb) if syntax == JPEGBaseline8Bit else is_rgb,
    )


def _read_to_pixels(file: BinaryIO) -> bytes:
    """What lies before the pixels; ``file`` stands at their length, less its first bytes, afterwards."""
    start, read, at = file.tell(), bytearray(), -1
    while at < 0 and (piece := file.read(_PIECE_BYTES)):
        searched = max(0, len(read) - len(_PIXELS))
        read += piece
        at = read.find(_PIXELS, searched)
    if at < 0:
        raise ValueError("no pixels")
    file.seek(start + at + 4)
    return bytes(read[:at])


def _are_placed(header: Dataset, before: bytes) -> bool:
    if _is_sparse(header):
        return before.count(_PLACE) >= _frames(header)
    size_wh, tile_wh = _sizes(header)
    columns, rows = (-(-length // side) for length, side in zip(size_wh, tile_wh, strict=True))
    return _frames(header) >= columns * rows


def _is_sparse(header: Dataset) -> bool:
    return bool(header.get("DimensionOrganizationType") == "TILED_SPARSE")


def _sizes(header: Dataset) -> tuple[tuple[int, int], tuple[int, int]]:
    """(width, height) of the picture, and of a tile."""
    return (header.TotalPixelMatrixColumns, header.TotalPixelMatrixRows), (header.Columns, header.Rows)


def _frames(header: Dataset) -> int:
    return int(header.get("NumberOfFrames", 1))


def _extended_table(before: bytes) -> np.ndarray:
    at = before.rfind(_EXTENDED_TABLE) + len(_EXTENDED_TABLE)
    return np.frombuffer(before[at + 4 :][: _number(before[at : at + 4])], "<i8")


def _fits(file: BinaryIO, offsets: np.ndarray, start: int, file_bytes: int, frames: int) -> bool:
    """Whether the offsets, counted from ``start``, are those of tiles one after the other.

    Tiles that a file which is cut short has lost are told when they are read.
    """
    if len(offsets) != frames or offsets[0] != 0 or (np.diff(offsets) <= _HEAD_BYTES).any():
        return False
    reach = _REACH_IN_ZIP_BYTES if isinstance(file, zipfile.ZipExtFile) else file_bytes
    near = offsets[offsets < min(reach, file_bytes - start - _HEAD_BYTES)]
    for offset in near[:: 1 + len(near) // _LOOKED_UP].tolist():
        file.seek(start + offset)
        if file.read(len(_ITEM)) != _ITEM:
            return False
    return True


def _is_stored_as_rgb(stream: bytes, is_rgb: bool) -> bool:
    """By a JPEG stream, in the order in which libjpeg believes its marks; as the header says where it has none."""
    try:
        image: Any = Image.open(BytesIO(stream), formats=("JPEG",))
    except (OSError, ValueError):  # a damaged tile is told when it is read
        return is_rgb
    if image.mode != "RGB":
        return is_rgb
    names, sampled = zip(*((layer[0], layer[1:3]) for layer in image.layer), strict=True)
    if "jfif" in image.info:
        return False
    if "adobe" in image.info:
        return bool(image.info.get("adobe_transform") == 0)
    return names in RGB_NAMES or (is_rgb and len(set(sampled)) == 1)


def _number(encoded: bytes) -> int:
    return int.from_bytes(encoded, "little")
