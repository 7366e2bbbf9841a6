"""A pydicom decoding plug-in: JPEG Lossless and 12-bit JPEG Extended through libjpeg-turbo, as imagecodecs ships it.

It fills the place that pydicom leaves to GDCM and to GPL code. ``register`` is called once, by ``codecs``; the other
names are what pydicom's plug-in interface wants (see ``pydicom.pixels.decoders.base``).
"""

from importlib.util import find_spec

from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeRunner
from pydicom.uid import JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1

NAME = "imagecodecs"
SYNTAXES = (JPEGExtended12Bit, JPEGLossless, JPEGLosslessSV1)
DECODER_DEPENDENCIES = dict.fromkeys(SYNTAXES, ("numpy", NAME))


def is_available(uid: str) -> bool:
    """Whether this plug-in can decode the transfer syntax here."""
    return uid in SYNTAXES and find_spec(NAME) is not None


def _decode_frame(src: bytes, runner: DecodeRunner) -> bytearray:
    """The samples of one frame, colour by pixel, without any change of colours. Raises imagecodecs' errors."""
    from imagecodecs import jpeg8_decode

    kind = "YCBCR" if runner.samples_per_pixel == 3 else None  # the same in and out: nothing is converted
    pixels = jpeg8_decode(src, colorspace=kind, outcolorspace=kind)
    runner.set_option("bits_allocated", 8 * pixels.dtype.itemsize)
    runner.set_option("planar_configuration", 0)
    return bytearray(pixels.tobytes())


def register() -> None:
    """Adds the plug-in to pydicom's decoders; harmless when repeated."""
    for syntax in SYNTAXES:
        decoder = get_decoder(syntax)
        if NAME not in decoder.available_plugins and is_available(syntax):
            decoder.add_plugin(NAME, (__name__, "_decode_frame"))
