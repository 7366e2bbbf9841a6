"""DICOM whole slides that OpenSlide refuses, or that lie in a zip, through wsidicom.

A zip is read where it lies: nothing of it is unpacked to disk. Label and overview images are never opened.
"""

import math
import threading
import warnings
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.dicom.collection import ARCHIVE_ERRORS, may_be_slice
from dragonfly_cli.readers.dicom.signature import HEAD_BYTES, WSI_SOP_CLASS, is_dicom, sop_class
from dragonfly_cli.readers.head import head_if_readable
from dragonfly_cli.readers.jpeg_damage import is_damaged
from dragonfly_cli.readers.pyramid import WHITE, TileError, downsamples_of, one_of, plan_tiles
from dragonfly_cli.readers.slide_scale import scale_of
from dragonfly_cli.readers.slide_tiles import KEPT_BYTES
from dragonfly_cli.readers.source import left_out

if TYPE_CHECKING:
    from dragonfly_cli.readers.slide_dicom_tiles import JpegTiles, TileFacts


def is_zipped_slide(path: Path) -> bool:
    """Whether a zip holds a file of a DICOM whole slide."""
    try:
        with zipfile.ZipFile(path) as archive:
            return any(_is_of_slide(archive, name) for name in _entries(archive))
    except ARCHIVE_ERRORS:
        return False


def _is_of_slide(archive: zipfile.ZipFile, name: str) -> bool:
    with archive.open(name) as entry:
        head = entry.read(HEAD_BYTES)
    return is_dicom(head) and sop_class(head) == WSI_SOP_CLASS


def not_shown(place: Path) -> list[str]:
    """What of a zip or a folder with a DICOM slide is not shown, one sentence each.

    That is other slides - a label may be a series of its own, and is none - and files that cannot be read, any of which
    may be the finest level of this one.
    """
    if place.is_dir():
        files = sorted(entry for entry in place.iterdir() if entry.is_file() and not entry.name.startswith("."))
        return _not_shown({file.name: partial(file.open, "rb") for file in files})
    with zipfile.ZipFile(place) as archive:
        return _not_shown({name: partial(archive.open, name) for name in sorted(_entries(archive))})


def _not_shown(openers: dict[str, Callable[[], Any]]) -> list[str]:
    parts = {name: part_of(opener) for name, opener in openers.items()}
    slides = {part.series for part in parts.values() if part and part.is_level}
    meant = [name for name, part in parts.items() if part or _is_broken_part(name, openers[name])]
    broken = [number for number, name in enumerate(meant, 1) if parts[name] is None]
    several = f"only one of {len(slides)} DICOM slides in it is shown; give a file of another to see that"
    return [several] * (len(slides) > 1) + [left_out(broken, len(meant))] * bool(broken)


def _is_broken_part(name: str, opener: Callable[[], Any]) -> bool:
    """Whether a file that is no part of a slide that can be read may have been one."""
    try:
        with opener() as file:
            head = file.read(HEAD_BYTES)
    except ARCHIVE_ERRORS:
        head = None
    if head and is_dicom(head):
        is_cut = len(head) < HEAD_BYTES and WSI_SOP_CLASS.startswith(sop_class(head))
        return is_cut or sop_class(head) == WSI_SOP_CLASS
    return may_be_slice(name, head)


_JPEG_BASELINE = "1.2.840.10008.1.2.4.50"
_SERIES_TAG = b"\x20\0\x0e\0"  # (0020,000E), as nearly all files write it
_NO_LEVELS = {"LABEL", "OVERVIEW", "THUMBNAIL"}  # third value of ImageType, PS3.3 C.8.12.4.1.1


@dataclass(frozen=True)
class SlidePart:
    """What a file of a DICOM slide is: one of the levels, or a label, an overview or a thumbnail, or says nothing."""

    series: str  # for comparing, never shown
    is_level: bool
    is_label: bool


def part_of(opener: Callable[[], Any]) -> SlidePart | None:
    """None of a file that is damaged, cut before its pixels, or of another kind."""
    from dragonfly_cli.readers.slide_dicom_tiles import read_to_frames

    try:
        with warnings.catch_warnings(), opener() as file:
            warnings.simplefilter("ignore")
            header = read_to_frames(file, "SOPClassUID", "ImageType", "SeriesInstanceUID")
            kind = header.get("SOPClassUID") or header.file_meta.MediaStorageSOPClassUID
            if kind != WSI_SOP_CLASS.decode() or not file.read(1):
                return None
            kinds = set(header.get("ImageType") or ())
            return SlidePart(str(header.SeriesInstanceUID), "VOLUME" in kinds, bool(kinds & _NO_LEVELS))
    except Exception:  # zipfile and pydicom raise what they like
        return None


def parts_beside(path: Path) -> dict[Path, SlidePart]:
    """The files of the named one's series, sorted, which another slide in the folder has no part in."""
    own = part_of(partial(path.open, "rb"))
    if own is None:
        return {}
    files = sorted(entry for entry in path.parent.iterdir() if entry.is_file() and _may_be_of(own.series, entry))
    parts = {file: part for file in files if (part := part_of(partial(file.open, "rb")))}
    return {file: part for file, part in parts.items() if part.series == own.series}


def _may_be_of(series: str, path: Path) -> bool:
    """False where the first bytes name another series: a folder may hold hundreds of slides, and parsing is slow."""
    head = head_if_readable(path)
    return series.encode() in head or _SERIES_TAG not in head


def jpegs_if_openslide_fits(path: Path) -> "list[JpegTiles] | None":
    """The levels of JPEG tiles of a slide that OpenSlide shows as it is.

    None of one that it would show otherwise, or that would end the program, which a damaged one can do.
    """
    from dragonfly_cli.readers.slide_dicom_tiles import tile_facts

    try:
        facts = [tile_facts(file) for file, part in parts_beside(path).items() if not part.is_label]
    except Exception:  # pydicom's, of what wsidicom refuses
        return None
    return [each.jpegs for each in facts if each.jpegs] if all(each.suit_openslide for each in facts) else None


class WsidicomPyramid:
    """See ``Pyramid``; ``path`` is a file of the slide, whose neighbours belong to it, or a zip. Raises InputError."""

    background = WHITE
    format = "dicom"
    mode = "RGB"

    def __init__(self, path: Path) -> None:
        self._path = path
        self._lock = threading.Lock()
        with self._in_own_words():
            self._slide = self._open()
        try:
            with self._in_own_words():  # much is read only now
                self._read_levels()
        except InputError:
            self.close()
            raise

    def read(self, level: int, block: Box) -> Image.Image:
        canvas = Image.new("RGB", block.size_wh, WHITE)
        inside = block.within(Box(0, 0, *self.level_sizes[level]))
        if inside is None:
            return canvas
        try:
            with self._lock:  # some of wsidicom's decoders would mix up the tiles of two threads
                pixels = self._jpeg_block(level, inside) if self._is_jpeg else self._block(level, inside)
        except Exception:
            # decoders, pydicom and wsidicom each raise what they like; whichever it is, the pixels are not there
            raise TileError(f"level {level}") from None
        canvas.paste(self._as_8_bits(pixels).convert("RGB"), (inside.x - block.x, inside.y - block.y))
        return canvas

    def _block(self, level: int, block: Box) -> Image.Image:
        pixels: Image.Image = self._slide.read_region(
            (block.x, block.y), self._levels[level].level, block.size_wh, threads=1
        )
        return pixels

    def _jpeg_block(self, level: int, block: Box) -> Image.Image:
        canvas = Image.new("RGB", block.size_wh)
        for (column, row), part in plan_tiles(block, self.tile_sizes[level]):
            left, top = column * self.tile_sizes[level][0], row * self.tile_sizes[level][1]
            there = part.x - left, part.y - top, part.x - left + part.width, part.y - top + part.height
            canvas.paste(self._jpeg_tile(level, column, row).crop(there), (part.x - block.x, part.y - block.y))
        return canvas

    def _decode_jpeg(self, level: int, column: int, row: int) -> Image.Image:
        """Raises TileError where libjpeg would show a part of the tile alone, and what is none of it from there on."""
        from wsidicom.geometry import Point

        instance = self._levels[level].default_instance
        stream, pixels = instance.image_data.get_encoded_and_decoded_tile(
            Point(column, row), instance.default_z, instance.default_path
        )
        if is_damaged(stream):
            raise TileError("libjpeg would not tell")
        tile = Image.fromarray(pixels)
        return Image.merge("YCbCr", tile.split()).convert("RGB") if self._is_rgb_in_name_only else tile

    def details(self) -> dict[str, Any]:
        return {"objective_power": None, "bounds": None, "quickhash": None}

    def close(self) -> None:
        self._slide.close()

    def _as_8_bits(self, pixels: Image.Image) -> Image.Image:
        """Grey of more bits by the range that is stored; Pillow would clip it to white."""
        if pixels.mode != "I":
            return pixels
        return Image.fromarray((np.asarray(pixels) * 255 // self._largest).astype(np.uint8))

    def _open(self) -> Any:
        from wsidicom import WsiDicom

        return WsiDicom.open(list(self._files()))

    def _facts_of(self, file: Any) -> "TileFacts":
        """Raises InputError where wsidicom would take other bytes for tiles."""
        from dragonfly_cli.readers.slide_dicom_tiles import tile_facts

        facts = tile_facts(file)
        if not facts.fits_table:
            why = "the DICOM slide is wrong about where in the file its tiles lie"
            raise InputError(f"cannot open {self._path}: {why}", "copy or export it again")
        if facts.are_in_pieces:
            why = "the tiles of the DICOM slide are stored in several fragments each, which is not supported"
            by_openslide = "unpack the zip, or " if facts.has_table and zipfile.is_zipfile(self._path) else ""
            remedy = f"{by_openslide}export it again with one fragment for each tile"
            raise InputError(f"cannot open {self._path}: {why}", remedy)
        return facts

    def _read_levels(self) -> None:
        levels = sorted(self._slide.levels, key=lambda level: level.level)
        self._levels = levels
        self.level_sizes = tuple((level.size.width, level.size.height) for level in levels)
        self.downsamples = downsamples_of(self.level_sizes)
        self.tile_sizes = tuple((level.tile_size.width, level.tile_size.height) for level in levels)
        pictures = [len(level.focal_planes) * len(level.optical_paths) for level in levels]  # all, to refuse odd ones
        self.shortcomings = one_of(pictures[0])
        facts = [self._facts_of(file) for level in levels for file in level.default_instance.image_data.files]
        self._is_rgb_in_name_only = any(each.is_rgb and not each.is_stored_as_rgb for each in facts)
        finest = levels[0].default_instance
        self.icc_profile = _profile_in(finest.image_data.files[0])
        self._is_jpeg = finest.image_data.transfer_syntax == _JPEG_BASELINE and finest.dataset.samples_per_pixel == 3
        self._jpeg_tile = lru_cache(max(1, KEPT_BYTES // (3 * math.prod(self.tile_sizes[0]))))(self._decode_jpeg)
        self._largest = 2**finest.dataset.bits - 1
        mpp = levels[0].mpp
        self.scale = scale_of({"openslide.mpp-x": str(mpp.width), "openslide.mpp-y": str(mpp.height)})

    @contextmanager
    def _in_own_words(self) -> Iterator[None]:
        """Whatever wsidicom raises as an InputError; pydicom's warnings may quote a patient's name."""
        from wsidicom.errors import WsiDicomNoResolutionError

        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                yield
        except InputError:
            raise
        except WsiDicomNoResolutionError:  # wsidicom tells levels apart by it alone
            raise InputError(
                f"cannot open {self._path}: the DICOM slide does not give the size of its pixels (PixelSpacing)",
                self._unpack_or("export it again with the size of its pixels"),
            ) from None
        except NotImplementedError:
            raise InputError(
                f"cannot open {self._path}: the levels of the DICOM slide are not powers of two apart",
                self._unpack_or("export it again with such levels, or with its finest alone"),
            ) from None
        except Exception as error:
            raise InputError(
                f"cannot open {self._path}: it holds no DICOM whole slide that can be read ({type(error).__name__})",
                "copy or export it again, with all files that belong to it",
            ) from None

    def _unpack_or(self, remedy: str) -> str:
        """A zip's first remedy: of a folder OpenSlide may show what wsidicom cannot."""
        return "unpack the zip" if zipfile.is_zipfile(self._path) else remedy

    def _files(self) -> Iterator[Any]:
        if not zipfile.is_zipfile(self._path):
            yield from self._files_beside()
            return
        from upath import UPath

        with zipfile.ZipFile(self._path) as archive:
            for name in _entries(archive):
                part = part_of(partial(archive.open, name))
                if part and not part.is_label:
                    yield UPath(f"zip://{name}", fo=str(self._path))

    def _files_beside(self) -> list[Path]:
        parts = parts_beside(self._path)
        if parts and all(part.is_label for part in parts.values()):
            raise InputError(
                f"cannot open {self._path}: it holds a label or an overview, and no slide", "name a file of the slide"
            )
        return [file for file, part in parts.items() if not part.is_label]


def _profile_in(file: Any) -> bytes | None:
    """The colour profile of the first optical path.

    wsidicom gives it with many other facts, and none at all where any of these is odd. Raises what pydicom raises.
    """
    from dragonfly_cli.readers.slide_dicom_tiles import read_to_frames

    with file.open("rb") as stream:
        paths = read_to_frames(stream, "OpticalPathSequence").get("OpticalPathSequence")
    return paths[0].get("ICCProfile") if paths else None


def _entries(archive: zipfile.ZipFile) -> list[str]:
    """The files of a zip, without hidden ones and those that macOS adds."""
    names = (entry.filename for entry in archive.infolist() if not entry.is_dir())
    return [name for name in names if not any(part.startswith((".", "__MACOSX")) for part in name.split("/"))]
