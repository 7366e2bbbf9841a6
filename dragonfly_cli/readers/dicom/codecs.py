"""Decoders for compressed frames: which of pydicom's plug-ins is tried when, and what to install where none is there.

Non-goals: which bytes of a file are a frame, and what its values look like (``decoding``, ``display``).
"""

import contextlib
import os
import sys
import threading
from collections.abc import Iterator
from itertools import pairwise
from typing import Any

from pydicom.dataset import Dataset
from pydicom.pixels import get_decoder
from pydicom.uid import UID, JPEGExtended12Bit

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom import jpeg_plugin
from dragonfly_cli.readers.dicom.display import Array
from dragonfly_cli.readers.dicom.failures import COPY_HINT, READ_ERRORS

CONVERT_HINT = "convert it to Explicit VR Little Endian, for example with `gdcmconv --raw IN OUT`"
_IMAGECODECS = "needs libjpeg-turbo: pip install imagecodecs"
_CHARLS = "JPEG-LS needs CharLS: pip install pyjpegls"
_OPENJPEG = "JPEG 2000 needs OpenJPEG: pip install pylibjpeg pylibjpeg-openjpeg"
INSTALL_HINTS = {  # for the compressed transfer syntaxes that pydicom does not read by itself
    "1.2.840.10008.1.2.4.50": "JPEG Baseline needs Pillow: pip install pillow",
    "1.2.840.10008.1.2.4.51": f"12-bit JPEG Extended {_IMAGECODECS}",
    "1.2.840.10008.1.2.4.57": f"JPEG Lossless {_IMAGECODECS}",
    "1.2.840.10008.1.2.4.70": f"JPEG Lossless {_IMAGECODECS}",
    "1.2.840.10008.1.2.4.80": _CHARLS,
    "1.2.840.10008.1.2.4.81": _CHARLS,
    "1.2.840.10008.1.2.4.90": _OPENJPEG,
    "1.2.840.10008.1.2.4.91": _OPENJPEG,
    "1.2.840.10008.1.2.4.201": "High-Throughput " + _OPENJPEG,
    "1.2.840.10008.1.2.4.202": "High-Throughput " + _OPENJPEG,
    "1.2.840.10008.1.2.4.203": "High-Throughput " + _OPENJPEG,
    "1.2.840.10008.1.2.5": "RLE needs pylibjpeg: pip install pylibjpeg pylibjpeg-rle",
}
DEEPEST_BITS = {JPEGExtended12Bit: 12}  # GDCM and Pillow count as decoders of its 8-bit form
PLUGINS = (jpeg_plugin.NAME, "pylibjpeg", "pyjpegls", "pillow")  # in the order in which they are tried
RLE_HEAD_BYTES = 64

_stderr_lock = threading.Lock()
jpeg_plugin.register()


def can_decode(syntax: UID, bits: int = 8) -> bool:
    """Whether what is installed decodes ``bits`` of a transfer syntax."""
    try:
        decoder = get_decoder(syntax)
    except NotImplementedError:
        return False
    is_deep_enough = bits <= 8 or syntax not in DEEPEST_BITS
    return decoder.is_available and (
        is_deep_enough or bool({jpeg_plugin.NAME, "pylibjpeg"} & set(decoder.available_plugins))
    )


def decoded_frame(one: Dataset, syntax: UID) -> Array:
    """The only frame of ``one``, by the first plug-in that can; raises what the last of them raises.

    GDCM is used only where there is no other: when a stream breaks its rules it may end the process.
    """
    decoder = get_decoder(syntax)
    how: dict[str, Any] = {"index": 0, "correct_unused_bits": False}
    plugins = [name for name in PLUGINS if name in decoder.available_plugins] or [""]
    for plugin in plugins[:-1]:
        with contextlib.suppress(*READ_ERRORS), _panics_as_errors():
            return decoder.as_array(one, decoding_plugin=plugin, **how)[0]
    with _panics_as_errors():
        return decoder.as_array(one, decoding_plugin=plugins[-1], **how)[0]


def refuse_rle_surplus(stream: bytes, plane_bytes: int) -> None:
    """Raises ValueError where an RLE stream has more than ``plane_bytes`` in a plane: of another size, or damaged.

    Decoders leave the surplus away, and what they keep may be sheared. Zeros, two for a byte, pad the planes of some.
    """
    from rle.rle import decode_segment, parse_header

    with _panics_as_errors():
        starts = [start for start in parse_header(stream[:RLE_HEAD_BYTES]) if start]
        for start, stop in pairwise([*starts, len(stream)]):
            plane = stream[start:stop]
            surplus = len(decode_segment(plane)) - plane_bytes
            if surplus > 0 and not plane.endswith(bytes(2 * surplus)):
                raise ValueError("a plane is longer than the header says")


@contextlib.contextmanager
def _panics_as_errors() -> Iterator[None]:
    """pylibjpeg-rle is written in Rust, whose panics are no Exception and would end a whole run."""
    try:
        yield
    except BaseException as error:
        if type(error).__module__ == "pyo3_runtime":
            raise ValueError("the decoder panicked") from None
        raise


def undecodable(label: str, syntax: UID, bits: int) -> InputError:
    """The error for the file ``label`` whose frame could not be decoded: no decoder, or damaged pixel data."""
    is_standard = syntax.startswith("1.2.840.10008.") and syntax.is_valid
    name = header_of.known_name(syntax) or (f"transfer syntax {syntax}" if is_standard else "a private transfer syntax")
    if can_decode(syntax, bits):
        return InputError(f"cannot decode {label}: its pixel data ({name}) is damaged or incomplete", COPY_HINT)
    if syntax in INSTALL_HINTS:
        return InputError(f"cannot decode {label}: no decoder for {name} is installed", INSTALL_HINTS[syntax])
    return InputError(f"cannot decode {label}: {name} is not supported", CONVERT_HINT)


@contextlib.contextmanager
def quiet_decoders() -> Iterator[None]:
    """Hold back what C libraries (OpenJPEG, GDCM) print to the process's stderr about a broken stream."""
    with _stderr_lock:
        try:
            sys.stderr.flush()
            kept = os.dup(2)
        except (OSError, AttributeError):  # there is no stderr that could be written to
            yield
            return
        nowhere = os.open(os.devnull, os.O_WRONLY)
        try:
            os.dup2(nowhere, 2)
            yield
        finally:
            os.dup2(kept, 2)
            os.close(kept)
            os.close(nowhere)
