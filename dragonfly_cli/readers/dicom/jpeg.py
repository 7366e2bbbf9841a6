"""What JPEG and JPEG 2000 streams say of themselves, and colour JPEG in its natural colours.

DICOM headers often say RGB above a stream that is YCbCr, and the other way round. The stream's own marks (JFIF, Adobe,
component names) decide, as in every JPEG viewer; without any, the header, unless the pixels speak against it. In
lossless JPEG the header stands above JFIF, which encoders leave above RGB too.
Non-goals: grey frames and all other codecs, which pydicom reads well.
"""

import struct
from io import BytesIO

import numpy as np
from PIL import Image

from dragonfly_cli.readers.dicom.display import Array

JPEG_START = b"\xff\xd8"
APP0 = b"\xff\xe0"
JPEG_2000_SIZE = b"\xff\x4f\xff\x51"
JPEG_2000_CODING = b"\xff\x52\x00"
START_OF_FRAME = {*range(0xC0, 0xD0), 0xF7} - {0xC4, 0xC8, 0xCC}  # Huffman and arithmetic tables are no frames
CLEARLY = 2  # times nearer: of less, fields of tissue would be taken for the other
DARK = 4  # times darker is luma than chroma, of which no colour is 0
LEAST_DETAIL = 0.6  # green and blue have about as much as red, chroma a third of what luma has, or less
RGB_NAMES = ((82, 71, 66), (114, 103, 98))  # "RGB" and "rgb" as component numbers


def natural_rgb(frame: bytes, header_says_rgb: bool) -> Array:
    """A baseline JPEG stream as [height, width, 3] uint8 RGB. Raises what Pillow raises."""
    image = Image.open(BytesIO(frame), formats=("JPEG",))
    if not header_says_rgb or _is_marked(image):
        return np.asarray(image.convert("RGB"))
    image.draft("YCbCr", image.size)  # the stored components, untouched
    return rgb_by_look(np.asarray(image))


def rgb_by_look(stored: Array) -> Array:
    """[height, width, 3] uint8 of which nobody knows whether it is RGB or YCbCr, as RGB."""
    if looks_like_ycbcr(stored):
        return np.asarray(Image.fromarray(stored, "YCbCr").convert("RGB"))
    return stored


def looks_like_ycbcr(stored: Array) -> bool:
    """Whether the second and third component are like chroma.

    They stay near 128 then, or no nearer to the first, and have little of its detail: green and blue may lie near 128,
    as those of mucosa do, but have as much of it as red.
    """
    values = stored.astype(np.int16)
    first, others = values[..., :1], values[..., 1:]
    from_neutral, from_first = np.abs(others - 128).mean(), np.abs(others - first).mean()
    if from_neutral > from_first * CLEARLY:
        return False
    across, down = (np.abs(np.diff(values, axis=axis)).sum(axis=(0, 1)) for axis in (1, 0))
    detail = across + down
    if first.mean() * DARK < others.mean() or not detail.any():  # saturated colours on black have much chroma
        return bool(from_neutral < from_first)
    return bool(detail[1:].mean() < LEAST_DETAIL * detail[0])


def size_of(stream: bytes) -> tuple[int, int] | None:
    """(width, height) as a JPEG, JPEG-LS or JPEG 2000 stream declares it; None where nothing is found."""
    if not stream.startswith(JPEG_START):
        at = stream.find(JPEG_2000_SIZE, 0, 4096)
        if at < 0 or len(stream) < at + 24:
            return None
        right, bottom, left, top = struct.unpack_from(">4I", stream, at + 8)
        return right - left, bottom - top
    frame = _frame_header(stream)
    if frame is None:
        return None
    height, width = struct.unpack_from(">HH", stream, frame + 5)
    return width, height


def precision(stream: bytes) -> int | None:
    """Bits per sample of a JPEG, JPEG-LS or JPEG 2000 stream; None where nothing is found."""
    if not stream.startswith(JPEG_START):
        at = stream.find(JPEG_2000_SIZE, 0, 4096)
        return (stream[at + 42] & 127) + 1 if 0 <= at < len(stream) - 42 else None  # the upper bit is the sign
    frame = _frame_header(stream)
    return None if frame is None else stream[frame + 4]


def without_jfif(stream: bytes) -> bytes:
    """A JPEG or JPEG-LS stream without the mark at its beginning that says YCbCr."""
    if not stream.startswith(JPEG_START + APP0) or stream[6:10] != b"JFIF":
        return stream
    return stream[:2] + stream[4 + int.from_bytes(stream[4:6], "big") :]


def has_own_colours(stream: bytes) -> bool:
    """Whether a JPEG 2000 stream makes its three components from red, green and blue by itself."""
    at = stream.find(JPEG_2000_CODING, 0, 4096)
    return 0 <= at < len(stream) - 8 and stream[at + 8] == 1


def has_end(stream: bytes) -> bool:
    """Whether the last scan of a JPEG stream is followed by the end marker."""
    return stream.rfind(b"\xff\xd9") > stream.rfind(b"\xff\xda")


def _frame_header(stream: bytes) -> int | None:
    """Where the start-of-frame marker of a JPEG or JPEG-LS stream stands."""
    at = 2
    while at + 9 <= len(stream) and stream[at] == 0xFF:
        marker = stream[at + 1]
        if marker in START_OF_FRAME:
            return at
        is_bare = marker in (0xFF, 0x01) or 0xD0 <= marker <= 0xD8
        at += 1 if marker == 0xFF else 2 if is_bare else 2 + int.from_bytes(stream[at + 2 : at + 4], "big")
    return None


def _is_marked(image: Image.Image) -> bool:
    """Whether the stream itself tells its colour space; only chroma is ever subsampled."""
    layers = getattr(image, "layer", [])
    names = tuple(layer[0] for layer in layers)
    is_subsampled = len({layer[1:3] for layer in layers}) > 1
    return "jfif" in image.info or "adobe" in image.info or names in RGB_NAMES or is_subsampled
