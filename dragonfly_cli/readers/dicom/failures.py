"""What broken DICOM files make pydicom do - raise almost anything, warn, log - and how it is told in our own words.

pydicom's messages quote element values, which may be a patient's, so none of them is passed on.
"""

import logging
import struct
import warnings
import zlib
from collections.abc import Iterator
from contextlib import contextmanager

from pydicom.errors import BytesLengthException, InvalidDicomError

from dragonfly_cli.errors import InputError

COPY_HINT = "copy or export the file again"
READ_ERRORS = (  # what pydicom and its plug-ins raise for files of all kinds of brokenness
    AttributeError,
    ValueError,
    TypeError,
    KeyError,
    IndexError,
    OSError,
    EOFError,
    RuntimeError,  # with NotImplementedError and RecursionError
    OverflowError,
    ZeroDivisionError,
    AssertionError,
    SyntaxError,  # Pillow's word for a broken stream
    InvalidDicomError,
    BytesLengthException,
    struct.error,
    zlib.error,
)


@contextmanager
def quiet_pydicom() -> Iterator[None]:
    """Hold back the warnings and log lines of pydicom and its plug-ins."""
    logger = logging.getLogger("pydicom")
    before = logger.level
    logger.setLevel(logging.CRITICAL + 1)  # holds for the loggers of its modules too
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        logger.setLevel(before)


@contextmanager
def in_own_words(label: str, why: str) -> Iterator[None]:
    """Turns whatever pydicom raises about the file ``label`` into an InputError that says ``why``."""
    with quiet_pydicom():
        try:
            yield
        except MemoryError:
            raise InputError(f"cannot read {label}: out of memory", "close other programs") from None
        except READ_ERRORS:
            raise InputError(f"cannot read the DICOM file {label}: {why}", COPY_HINT) from None
