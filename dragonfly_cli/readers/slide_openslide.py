"""A slide's levels through OpenSlide: every format it reads, DICOM included.

Label and macro images are never opened: they may show a patient's name. Tiles in JPEG and deflate are decoded
directly where that gives the same pixels (``slide_tiles``).
"""

import threading
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import openslide
from PIL import Image, ImageCms

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.foreign import EXPORT_SLIDE
from dragonfly_cli.readers.pyramid import TileError, exact_downsamples, size_as_level
from dragonfly_cli.readers.slide_scale import positive_number, scale_of
from dragonfly_cli.readers.slide_tiff import tiff_shortcomings
from dragonfly_cli.readers.slide_tiles import SegmentedPage, direct_levels

if TYPE_CHECKING:
    from dragonfly_cli.readers.slide_dicom_tiles import JpegTiles

OPEN_ERRORS = (openslide.OpenSlideError, OSError, ValueError, RuntimeError)
_UNTOLD_TILE_PX = 256
_DAMAGED_PROFILE = b"damaged"  # what cannot be used, and is told as that
_UNCOMPARED = ("aperio", "generic-tiff")  # formats of which OpenSlide takes pages of any shape for levels
_UNFIT = "a level of {} x {} px does not have the shape of the slide, and is not used"
_SECOND_PATH = "dicom.OpticalPathSequence[1].OpticalPathIdentifier"


def vendor_of(path: Path) -> str | None:
    """Which of its formats OpenSlide takes the file for, None where for none."""
    try:
        vendor: str | None = openslide.OpenSlide.detect_format(path)
    except OPEN_ERRORS:
        return None
    return vendor


class OpenSlidePyramid:
    """See ``Pyramid``. Raises InputError where OpenSlide refuses the file.

    ``jpegs`` are the levels of JPEG tiles, any of which may be damaged without a word of OpenSlide's.
    """

    mode = "RGB"

    def __init__(self, path: Path, jpegs: "Sequence[JpegTiles]" = ()) -> None:
        self._path = path
        self._lock = threading.Lock()
        self._handle = self._open()
        properties = self._handle.properties
        self.format: str = properties[openslide.PROPERTY_NAME_VENDOR]
        sizes, scales = self._handle.level_dimensions, self._handle.level_downsamples
        self._numbers = tuple(filter(self._fits, range(len(sizes))))  # of the levels, as OpenSlide counts them
        self.level_sizes: tuple[tuple[int, int], ...] = tuple(sizes[number] for number in self._numbers)
        self._told = tuple(scales[number] for number in self._numbers)  # what OpenSlide reckons with
        self.downsamples = exact_downsamples(self.level_sizes, self._told)
        self.tile_sizes = tuple(self._tile_size(number) for number in self._numbers)
        self.background = "#" + properties.get(openslide.PROPERTY_NAME_BACKGROUND_COLOR, "ffffff")
        self.scale = scale_of(properties)
        self.icc_profile = self._profile()
        unused = [size for number, size in enumerate(sizes) if number not in self._numbers]
        self.shortcomings = tiff_shortcomings(path, self.format) + [_UNFIT.format(*size) for size in unused]
        by_size = {each.size_wh: each for each in jpegs}
        self._jpegs = {level: by_size[size] for level, size in enumerate(self.level_sizes) if size in by_size}
        self._direct: dict[int, SegmentedPage] = direct_levels(path, self.format, self.level_sizes, self.downsamples)

    @property
    def mixes_pictures(self) -> bool:
        """Whether DICOM holds several focal planes or optical paths, of which OpenSlide may show any."""
        properties = self._handle.properties
        frames = positive_number(properties.get("dicom.NumberOfFrames")) or 1
        (width, height), (tile_w, tile_h) = self.level_sizes[0], self.tile_sizes[0]
        return frames > -(-width // tile_w) * -(-height // tile_h) or _SECOND_PATH in properties

    def read(self, level: int, block: Box) -> Image.Image:
        direct = self._direct.get(level)
        if not direct:
            return self._through_openslide(level, block)
        image = direct.read(block)
        for part in direct.empty_parts(block):  # which OpenSlide fills from finer levels
            image.paste(self._through_openslide(level, part), (part.x - block.x, part.y - block.y))
        return image

    def _through_openslide(self, level: int, block: Box) -> Image.Image:
        if (jpegs := self._jpegs.get(level)) and jpegs.are_damaged(block):
            raise TileError("libjpeg would not tell")
        handle = self._handle
        try:
            return self._read(handle, level, block)
        except OPEN_ERRORS:
            self._replace(handle)
        with self._open() as unspoilt:
            try:
                return self._read(unspoilt, level, block)
            except OPEN_ERRORS:
                raise TileError(f"level {level}") from None

    def details(self) -> dict[str, Any]:
        properties = self._handle.properties
        of_content = self.format != "dicom"  # there it is a hash of the series UID alone, by which a patient is found
        return {
            "objective_power": positive_number(properties.get(openslide.PROPERTY_NAME_OBJECTIVE_POWER)),
            "bounds": self._bounds(),
            "quickhash": properties.get(openslide.PROPERTY_NAME_QUICKHASH1) if of_content else None,
        }

    def close(self) -> None:
        for level in self._direct.values():
            level.close()
        self._handle.close()

    def _open(self) -> openslide.OpenSlide:
        try:
            return openslide.OpenSlide(self._path)
        except OPEN_ERRORS:
            raise InputError(
                f"cannot open the slide {self._path}: OpenSlide finds it damaged or of an unsupported kind",
                f"copy it again with all files that belong to it, or {EXPORT_SLIDE}",
            ) from None

    def _replace(self, spoilt: openslide.OpenSlide) -> None:
        """After one bad tile OpenSlide answers every later call on the handle with the same error.

        The old handle is not closed here, because another thread may be reading from it; it closes when the last
        one lets go of it.
        """
        with self._lock:
            if self._handle is spoilt:
                self._handle = self._open()

    def _read(self, handle: openslide.OpenSlide, level: int, block: Box) -> Image.Image:
        scale = self._told[level]
        origin = round(block.x * scale), round(block.y * scale)
        return _flattened(handle.read_region(origin, self._numbers[level], block.size_wh), self.background)

    def _fits(self, number: int) -> bool:
        """Whether a level has the shape of level 0, so that one downsample is right along both axes."""
        base, size = self._handle.level_dimensions[0], self._handle.level_dimensions[number]
        return self.format not in _UNCOMPARED or size_as_level(base, size, self._tile_size(number)) == size

    def _tile_size(self, number: int) -> tuple[int, int]:
        properties = self._handle.properties
        sides = (properties.get(f"openslide.level[{number}].tile-{side}") for side in ("width", "height"))
        width, height = (int(positive_number(side) or _UNTOLD_TILE_PX) for side in sides)
        return width, height

    def _profile(self) -> bytes | None:
        try:
            profile = self._handle.color_profile
        except ImageCms.PyCMSError:
            return _DAMAGED_PROFILE
        except OPEN_ERRORS:
            return None
        return None if profile is None else profile.tobytes()

    def _bounds(self) -> dict[str, int] | None:
        """The scanned part of level 0, in the formats that tell it."""
        names = ("x", "y", "width", "height")
        edges = [self._handle.properties.get(f"openslide.bounds-{name}", "") for name in names]
        return dict(zip(names, map(int, edges), strict=True)) if all(edges) else None


def _flattened(rgba: Image.Image, background: str) -> Image.Image:
    alpha = rgba.getchannel("A")
    if alpha.getextrema() == (255, 255):
        return rgba.convert("RGB")
    canvas = Image.new("RGB", rgba.size, background)
    canvas.paste(rgba.convert("RGB"), mask=alpha)
    return canvas
