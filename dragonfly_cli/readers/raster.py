"""Ordinary pictures (PNG, JPEG, TIFF ...) through Pillow, brought to 8-bit RGB as a viewer would show them.

Upright by EXIF, transparency on white, 16 bit by the full range of its type, colours by the profile or gamma in the
file. A picture has no physical scale of its own (its "dpi" is a printer's), so the scale is None unless the user gives
one. Of pages of unequal size the largest are the frames. Non-goal: formats that run other programs (EPS).
"""

import struct
import threading
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError
from PIL.TiffImagePlugin import TiffImageFile

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import raster_jp2, raster_png, raster_tiff
from dragonfly_cli.readers.changes import refuse_change, stamp_of
from dragonfly_cli.readers.colour import ToSrgb, by_gamma
from dragonfly_cli.readers.foreign import HEAD_BYTES, foreign_kind, refusal
from dragonfly_cli.readers.pyramid import TileError
from dragonfly_cli.readers.signature import TIFF_MAGICS, has_image_magic
from dragonfly_cli.readers.source import MppSource, SourceKind
from dragonfly_cli.readers.tiff_bits import DARK, DARK_16_BIT, FULL_16_BIT
from dragonfly_cli.readers.tiff_colours import ALL_CLEAR

FORMATS = ("PNG", "JPEG", "MPO", "TIFF", "GIF", "BMP", "WEBP", "JPEG2000", "PPM", "AVIF")
MAX_PIXELS = 500_000_000  # 1.5 GB as RGB; Pillow's own limit of 179 megapixels refuses real stitched scans
DARK_8_BIT = DARK_16_BIT // 256
NEARLY_BLACK = f"no pixel is brighter than {DARK_8_BIT - 1} of 255, so the picture is nearly black"
NO_RANGE = "the pixel type has no fixed range: the darkest value is shown black and the brightest white"
COPY_HINT = "copy or export the file again"
DECODE_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    EOFError,
    KeyError,
    IndexError,
    TypeError,
    OverflowError,
    ZeroDivisionError,
    RuntimeError,
    struct.error,
    zlib.error,
)

_pillow_limit = threading.Lock()


@contextmanager
def own_pixel_limit() -> Iterator[None]:
    """Lift Pillow's global pixel limit, so that ours is the one that holds; one thread at a time."""
    with _pillow_limit:
        before = Image.MAX_IMAGE_PIXELS
        Image.MAX_IMAGE_PIXELS = None
        try:
            yield
        finally:
            Image.MAX_IMAGE_PIXELS = before


@contextmanager
def quiet_pillow() -> Iterator[None]:
    """Hold back Pillow's warnings: what matters of them becomes an error in our own words."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield


def check_pixel_count(path: Path, size_wh: tuple[int, int]) -> None:
    """Raises InputError for a picture that would not fit memory; asked before anything is decoded."""
    if size_wh[0] * size_wh[1] > MAX_PIXELS:
        raise InputError(
            f"cannot open {path}: {size_wh[0]} x {size_wh[1]} pixels are more than {MAX_PIXELS // 10**6} million",
            "save it as a pyramidal TIFF or SVS; a slide may have any size",
        )


def crop(image: Image.Image, box: Box) -> Image.Image:
    """The part ``box`` of ``image``, the image itself when that is all of it; black outside, as in Pillow."""
    if (box.x, box.y) == (0, 0) and box.size_wh == image.size:
        return image
    with own_pixel_limit():
        return image.crop(box.corners)


def on_white(image: Image.Image) -> Image.Image:
    """An RGBA image laid on white, as RGB."""
    canvas = Image.new("RGB", image.size, "white")
    canvas.paste(image.convert("RGB"), mask=image.getchannel("A"))
    return canvas


def in_srgb(rgb: Image.Image, stored: Image.Image) -> tuple[Image.Image, list[str]]:
    """``rgb`` is ``stored`` by plain arithmetic; in the colours that its file means, and what to know about these."""
    profile, gamma = raster_tiff.profile_of(stored), stored.info.get("gamma")
    is_grey = len(stored.getbands()) < 3 and not stored.mode.startswith("P")
    to_srgb = ToSrgb(profile, "CMYK" if stored.mode == "CMYK" else "L" if is_grey else "RGB")
    if gamma and not profile and "srgb" not in stored.info:
        rgb = by_gamma(rgb, gamma)
    return to_srgb(stored if stored.mode == "CMYK" and to_srgb.changes else rgb), to_srgb.warnings


def to_rgb(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Any Pillow mode as 8-bit RGB, and what the user should know about it."""
    if image.mode.startswith("I;16"):
        return _from_16_bit(image)
    if image.format == "PPM" and image.mode == "I":  # which Pillow has stretched from the file's maximum to 65535
        return _scaled(np.asarray(image), 65535), []
    if image.mode == "F":  # a PFM
        return from_wide_range(np.asarray(image), is_white_zero=False), [NO_RANGE]
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        clear = image.convert("RGBA")
        if not np.asarray(clear.getchannel("A")).any():
            return on_white(clear), [ALL_CLEAR]
        return _noted(on_white(clear))
    return _noted(image.convert("RGB"))


def _noted(image: Image.Image) -> tuple[Image.Image, list[str]]:
    """Colours of 12 bits in 16 end here, of which the upper 8 bits are left."""
    return image, [NEARLY_BLACK] if np.asarray(image).max() < DARK_8_BIT else []


def _from_16_bit(image: Image.Image) -> tuple[Image.Image, list[str]]:
    values = np.asarray(image)  # [height, width]
    top = raster_tiff.top_of_16_bit(image, int(values.max(initial=0)))
    notes = []
    if top == FULL_16_BIT and values.size and values.max() < DARK_16_BIT:
        notes.append(DARK)
    if raster_tiff.is_white_zero(image):
        values = top - values  # Pillow inverts white-is-zero for 8 bits only
    return _scaled(values, top), notes


def _scaled(values: np.ndarray[Any, np.dtype[Any]], top: int) -> Image.Image:
    """[height, width] of values from 0 to ``top`` as grey RGB."""
    return Image.fromarray(np.rint(values.astype(np.float32) * (255 / top)).astype(np.uint8)).convert("RGB")


def from_wide_range(values: np.ndarray[Any, np.dtype[Any]], *, is_white_zero: bool) -> Image.Image:
    """[height, width] of values of any type as grey RGB, from the least to the greatest of them."""
    values = values.astype(np.float64)
    known = values[np.isfinite(values)]
    low, high = (known.min(), known.max()) if known.size else (0.0, 0.0)
    scaled = (np.clip(values, low, high) - low) / (high - low or 1)
    return _scaled(np.nan_to_num(1 - scaled if is_white_zero else scaled), 1)


class RasterSource:
    """A picture; its first frame is decoded on opening, so that a broken file is refused at once."""

    kind: SourceKind = "raster"

    def __init__(self, path: Path, options: OpenOptions) -> None:
        self.path = path
        self.warnings: list[str] = []
        self.mpp = (options.slide_mpp, options.slide_mpp) if options.slide_mpp else None
        self.mpp_source: MppSource = "option" if options.slide_mpp else "none"
        self._stamp = stamp_of(path)
        with quiet_pillow():
            self._file = self._open()
            try:
                self._read_facts()
            except DECODE_ERRORS as error:
                self.close()
                raise self._broken(error) from None
            except InputError:
                self.close()
                raise
        self.size_wh: tuple[int, int] = self._shown.size

    def view(self, box: Box, frame: int = 0) -> Image.Image:
        """The part ``box`` of ``frame`` as an RGB image. Raises InputError for a broken or missing frame."""
        return crop(self._frame(frame), box)

    def details(self) -> dict[str, Any]:
        return {"mode": self._mode}

    def close(self) -> None:
        self._file.close()

    def _open(self) -> Image.Image:
        try:
            with own_pixel_limit():
                image = Image.open(self.path)
        except DECODE_ERRORS as error:
            with self.path.open("rb") as file:
                head = file.read(HEAD_BYTES)
            if head.startswith(TIFF_MAGICS):
                from dragonfly_cli.readers.slide_tiff import is_cut_short

                if is_cut_short(self.path):
                    raise self._broken(EOFError("truncated")) from None
                with suppress(InputError, TileError):
                    decoded, self.warnings = raster_tiff.by_slide_reader(self.path)
                    return decoded
            is_unknown = isinstance(error, UnidentifiedImageError) and not has_image_magic(head)
            raise (self._unknown() if is_unknown else self._broken(error)) from None
        if image.format not in FORMATS:
            image.close()
            raise self._unknown()
        if image.format == "JPEG2000":
            image.info["icc_profile"] = raster_jp2.profile_of(self.path)
        return image

    def _read_facts(self) -> None:
        if raster_tiff.ends_early(self._file, self.path):  # libtiff would write to stderr of it
            raise self._broken(EOFError("truncated"))
        # An MPO is a phone's JPEG; what follows its first picture is a preview or the other eye.
        is_mpo = self._file.format == "MPO"
        self.format = "JPEG" if is_mpo else str(self._file.format)
        self._pages, told = ([0], []) if is_mpo else raster_tiff.frames_of(self._file, self.path)
        self.frames = len(self._pages)
        self.warnings += told
        self._file.seek(self._pages[0])
        self._mode = self._file.mode
        check_pixel_count(self.path, self._file.size)
        self._shown, self._shown_frame = self._decode(0), 0

    def _unknown(self) -> InputError:
        with self.path.open("rb") as file:
            kind = foreign_kind(self.path, file.read(HEAD_BYTES))
        if kind:
            return refusal(self.path, kind)
        return InputError(
            f"cannot open {self.path}: it is not an image of a known kind",
            "known are DICOM, slides (SVS, NDPI, MRXS, TIFF ...), PNG, JPEG, TIFF, GIF, BMP, WebP, AVIF, JPEG 2000",
        )

    def _frame(self, frame: int) -> Image.Image:
        if not 0 <= frame < self.frames:
            raise InputError(f"{self.path} has no frame {frame}", f"it has {self.frames}, counted from 0")
        if frame != self._shown_frame:
            try:
                with quiet_pillow():
                    self._shown, self._shown_frame = self._decode(frame), frame
            except DECODE_ERRORS as error:
                raise self._broken(error) from None
            if self._shown.size != self.size_wh:
                raise InputError(
                    f"cannot use frame {frame} of {self.path}: its size differs",
                    "save it as a file of its own",
                )
        return self._shown

    def _decode(self, frame: int) -> Image.Image:
        page = self._pages[frame]
        if self.frames > 1:
            if page < self._file.tell():  # Pillow loses its way in an animated PNG that it has read to the end
                refuse_change(self.path, self._stamp)
                self._file.close()
                self._file = self._open()
            self._file.seek(page)
            check_pixel_count(self.path, self._file.size)
        if isinstance(self._file, TiffImageFile):
            self._file.filename = ""  # else Pillow maps a plain one into memory by the size that it has when turned
        plain, notes = self._as_rgb(page)
        rgb, of_colours = in_srgb(plain, self._file)
        self.warnings += [sentence for sentence in notes + of_colours if sentence not in self.warnings]
        orientation = self._file.getexif().get(0x0112, 1)
        turn = ImageOps.exif_transpose(_tagged(rgb, orientation)) if orientation != 1 else rgb
        return turn or rgb

    def _as_rgb(self, page: int) -> tuple[Image.Image, list[str]]:
        file = self._file
        raster_tiff.check_pieces(file, self.path)
        if colours := raster_tiff.colours_beyond_pillow(file, self.path, page):
            return _noted(colours)
        if raster_tiff.has_no_range(file):
            values = raster_tiff.grey_samples(self.path, page)
            return from_wide_range(values, is_white_zero=raster_tiff.is_white_zero(file)), [NO_RANGE]
        file.load()
        stored = raster_png.with_opacity(raster_jp2.in_8_bits(raster_tiff.with_palette(file), self.path), self.path)
        return to_rgb(stored)

    def _broken(self, error: BaseException) -> InputError:
        if "truncated" in str(error):
            return InputError(f"cannot decode {self.path}: the file is cut short", COPY_HINT)
        reason = "the image data is damaged, or of a kind that is not supported"
        if kind := self._tiff_kind():
            return InputError(
                f"cannot decode {self.path}: {reason} ({kind})", "save it as 8- or 16-bit grey or RGB, with LZW"
            )
        if isinstance(error, UnidentifiedImageError):
            return InputError(f"cannot decode {self.path}: {reason}", COPY_HINT)
        return InputError(f"cannot decode {self.path}: the image data is damaged", COPY_HINT)

    def _tiff_kind(self) -> str | None:
        with self.path.open("rb") as file:
            if file.read(4) not in TIFF_MAGICS:
                return None
        from dragonfly_cli.readers.slide_tiff import kind_of

        return kind_of(self.path)


def _tagged(image: Image.Image, orientation: int) -> Image.Image:
    image.getexif()[0x0112] = orientation
    return image
