"""What of a TIFF Pillow passes over without a word: the sign of samples, white as zero, colours of 16 bits, a lost end.

Every function takes a picture that Pillow has opened, of whatever format; one that is no TIFF has none of this.
Tags and their values are those of TIFF 6.0.
"""

import zlib
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from PIL.TiffImagePlugin import TiffImageFile

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.jpeg_damage import is_damaged
from dragonfly_cli.readers.pyramid import TileError
from dragonfly_cli.readers.signature import TIFF_HEADER_BYTES
from dragonfly_cli.readers.tiff_bits import FULL_16_BIT, MAX_SAMPLE_VALUE, white_of
from dragonfly_cli.readers.tiff_colours import PLANAR, is_picture, palette_of

_BITS, _COMPRESSION, _PHOTOMETRIC, _SAMPLE_FORMAT = 258, 259, 262, 339
_DESCRIPTION, _COLOR_MAP = 270, 320
_STRIP_OFFSETS, _STRIP_BYTE_COUNTS, _TILE_OFFSETS, _TILE_BYTE_COUNTS = 273, 279, 324, 325
_PLANAR_CONFIGURATION, _JPEG_TABLES, _PROFILE = 284, 347, 34675
_NO_COMPRESSION, _JPEG, _DEFLATED = 1, 7, (8, 32946)
_UNPACKED_BYTES = 2**20  # at a time
_WHITE_IS_ZERO = 0
_WEBP = 50001
_SIGNED = 2


def top_of_16_bit(image: Image.Image, brightest: int) -> int:
    """The value shown white of a picture in 16-bit words: of 12 bits where the file has packed or declared so many."""
    tags = _tags(image)
    if (bits := max(tags.get(_BITS, (16,)))) < 16:
        return int(2**bits - 1)
    largest = max(tags.get(MAX_SAMPLE_VALUE, (FULL_16_BIT,)))
    return white_of(tags.get(_DESCRIPTION), image.size, largest, brightest)


def frames_of(image: Image.Image, path: Path) -> tuple[list[int], list[str]]:
    """The pages of a TIFF that are as large as the largest, and what to know of others; else every frame."""
    count = int(getattr(image, "n_frames", 1))
    if isinstance(image, TiffImageFile):
        from dragonfly_cli.readers import slide_tiff

        pages, told = slide_tiff.frames_of(path)
        return pages or list(range(count)), told
    return list(range(count)), []


def has_no_range(image: Image.Image) -> bool:
    """Whether samples are signed, of 32 bits or floating point, so that none of their values is black or white."""
    return image.format == "TIFF" and (image.mode in ("I", "F") or _tags(image).get(_SAMPLE_FORMAT, (1,))[0] == _SIGNED)


def is_white_zero(image: Image.Image) -> bool:
    """Whether the lowest value is white; Pillow inverts such pictures itself if they have 8 bits or fewer."""
    return image.format == "TIFF" and _tags(image).get(_PHOTOMETRIC) == _WHITE_IS_ZERO


def colours_beyond_pillow(image: Image.Image, path: Path, number: int) -> Image.Image | None:
    """Colours of 16 bits as RGB of 8, white by the rule for slides, and those in WebP; else None. Raises ValueError.

    Of 16 bits Pillow keeps the upper 8 alone, and takes the bytes of planes for pixels; its libtiff knows no WebP, and
    writes so to stderr.
    """
    bits, compression = _tags(image).get(_BITS, (1,)), _tags(image).get(_COMPRESSION)
    if len(bits) < 3 or (max(bits) <= 8 and compression != _WEBP):
        return None
    from dragonfly_cli.readers.slide_tiles import SegmentedPage

    with _page(path, number) as page:
        if not is_picture(page):
            raise ValueError("its samples are of a kind that is not known here")
        samples = SegmentedPage(path, page)
    try:
        if max(bits) > 8:
            samples.show_white(top_of_16_bit(image, samples.brightest_sample()))
        return samples.read(Box(0, 0, *samples.size_wh))  # Pillow's is the size when turned
    except TileError as error:
        raise ValueError("the samples cannot be decoded") from error
    finally:
        samples.close()


def by_slide_reader(path: Path) -> tuple[Image.Image, list[str]]:
    """What Pillow cannot open, such as big-endian 16 bits with white as zero, or in LERC; and what to know of it.

    Raises InputError and TileError.
    """
    from dragonfly_cli.readers.slide_tiff import TiffPyramid

    with closing(TiffPyramid(path)) as pyramid:
        image = pyramid.read(0, Box(0, 0, *pyramid.level_sizes[0])).convert(pyramid.mode)
    image.format = "TIFF"
    if pyramid.icc_profile:
        image.info["icc_profile"] = pyramid.icc_profile
    return image, pyramid.shortcomings


def grey_samples(path: Path, number: int) -> np.ndarray[Any, np.dtype[Any]]:
    """[height, width] of a page as the file means it. Raises ValueError.

    Pillow takes 8 bits for unsigned and 32 for signed, and exchanges the bytes of what is compressed and big-endian.
    """
    with _page(path, number) as page:
        try:
            found: np.ndarray[Any, np.dtype[Any]] = page.asarray()
        except RuntimeError as error:  # imagecodecs'
            raise ValueError("the samples cannot be decoded") from error
    if found.ndim != 2:
        raise ValueError("more than one sample a pixel")
    return found


@contextmanager
def _page(path: Path, number: int) -> Iterator[Any]:
    import tifffile

    try:
        with tifffile.TiffFile(path) as tiff:
            yield tiff.pages[number]
    except (tifffile.TiffFileError, AssertionError) as error:
        raise ValueError("the TIFF is damaged") from error


def with_palette(image: Image.Image) -> Image.Image:
    """``image``, whose palette Pillow takes for one of 16 bits; where it is not, its colours are all black."""
    entries = _tags(image).get(_COLOR_MAP)
    if image.mode == "P" and entries:
        image.putpalette(palette_of(np.reshape(entries, (3, -1))).tobytes())
    return image


def profile_of(image: Image.Image) -> bytes | None:
    """The ICC profile of the page that is looked at, where Pillow goes on with that of another one."""
    profile: bytes | None = (
        _tags(image).get(_PROFILE) if isinstance(image, TiffImageFile) else image.info.get("icc_profile")
    )
    return profile


def ends_early(image: Image.Image, path: Path) -> bool:
    """Whether a TIFF points to anything beyond its end, or one of its compressed tiles or strips ends there."""
    if not isinstance(image, TiffImageFile):
        return False
    from dragonfly_cli.readers.slide_tiff import is_cut_short

    file_bytes = path.stat().st_size
    is_compressed = _tags(image).get(_COMPRESSION) != _NO_COMPRESSION  # of others the counts are often wrong
    is_broken_off = any(start + size > file_bytes for start, size in _pieces(image))
    return (is_compressed and is_broken_off) or is_cut_short(path)


def check_pieces(image: Image.Image, path: Path) -> None:
    """Raises ValueError or zlib.error for a tile or strip that cannot be what it shall be, which libtiff would show."""
    pieces = [(start, size) for start, size in _pieces(image) if size > 0]
    if any(start < TIFF_HEADER_BYTES for start, _ in pieces):
        raise ValueError("a piece without a place")
    if len(_tags(image).get(_BITS, (1,))) > 1 and _tags(image).get(_PLANAR_CONFIGURATION, 1) not in PLANAR:
        raise ValueError("samples in an unknown order")
    compression, tables = (_tags(image).get(tag) for tag in (_COMPRESSION, _JPEG_TABLES))
    if compression not in (_JPEG, *_DEFLATED):
        return
    with path.open("rb") as file:
        for start, size in pieces:
            file.seek(start)
            packed = file.read(size)
            if compression == _JPEG and is_damaged(packed, tables or b""):
                raise ValueError("a piece is damaged")
            if compression in _DEFLATED:
                _check_deflated(packed)


def _check_deflated(packed: bytes) -> None:
    """Raises zlib.error where the checksum is wrong."""
    unpacking = zlib.decompressobj()
    while packed and not unpacking.eof:
        unpacking.decompress(packed, _UNPACKED_BYTES)
        packed = unpacking.unconsumed_tail


def _pieces(image: Image.Image) -> Iterator[tuple[int, int]]:
    """Where each tile or strip of a page begins in the file, and how many bytes it has there."""
    tags = _tags(image)
    offsets = tags.get(_TILE_OFFSETS) or tags.get(_STRIP_OFFSETS) or ()
    counts = tags.get(_TILE_BYTE_COUNTS) or tags.get(_STRIP_BYTE_COUNTS) or ()
    return zip(offsets, counts, strict=False)


def _tags(image: Image.Image) -> Any:
    return getattr(image, "tag_v2", {})
