"""Whose pictures DICOM files hold: what tells that two of them show the same patient, and not which one.

Only hashes leave this module. An id can be found from its hash by trying, so that these too are for comparing in memory
alone: never shown, logged or written. Only the parts of headers that stand before the pixels are read.
"""

import re
import tarfile
import zipfile
from collections.abc import Iterator
from contextlib import suppress
from functools import partial
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Any
from unicodedata import normalize

from pydicom.dataset import Dataset

from dragonfly_cli.readers.dicom.collection import MAX_MEMBERS, dicomdir_places, members_within_limits
from dragonfly_cli.readers.dicom.failures import quiet_pydicom
from dragonfly_cli.readers.dicom.index import header_up_to_pixels
from dragonfly_cli.readers.dicom.places import Place, in_memory, on_disk
from dragonfly_cli.readers.dicom.signature import DICOMDIR_SOP_CLASS, HEAD_BYTES, is_dicom, sop_class
from dragonfly_cli.readers.fingerprint import files_below
from dragonfly_cli.readers.head import read_head
from dragonfly_cli.readers.signature import DICOM_SUFFIXES, ZIP_MAGIC, has_image_magic, is_archive

# From what all files of a study share to what a file has alone: the first that is there is taken.
_UIDS = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID")
_HEADER_BYTES = 2**17  # of a tar's member; up to the pixels there is seldom half of it
_NOT_LETTERS = re.compile(r"[\W_]+")
_NOBODY = """anon anonym anonymous anonymize anonymized anonymise anonymised anonymouspatient anonpatient blank default
    deidentified dummy empty hidden id invalid missing na nan nil nobody noid noname none notapplicable notavailable
    null patient patientid pseudonymized pseudonymised redacted removed subject test undefined unknown unspecified"""
_PLACEHOLDERS = frozenset(_NOBODY.split())  # for an id that was removed; without case and punctuation
_FILLED = re.compile(r"[0x]*")  # nothing, 000000, XXX


def patients_in(path: Path) -> frozenset[str]:
    """Hashes of the patients and studies of a DICOM file, or of all files of a folder, an archive or a DICOMDIR.

    Two paths that share one show the same patient. Of other pictures, and of what cannot be read, there are none.
    """
    found: set[str] = set()
    # tarfile, zipfile and pydicom raise what they like of a file that is damaged; that is told when it is opened.
    with quiet_pydicom(), suppress(Exception):
        for place in _places(path):
            with suppress(Exception):
                found |= _keys(place)
    return frozenset(found)


def _places(path: Path) -> Iterator[Place]:
    if path.is_dir():
        yield from map(on_disk, files_below(path))
        return
    head = read_head(path)
    if is_archive(head):
        yield from _zipped(path) if head.startswith(ZIP_MAGIC) else _in_tar(path)
    elif is_dicom(head) and sop_class(head) == DICOMDIR_SOP_CLASS:
        yield from dicomdir_places(path)
    else:
        yield on_disk(path)


def _zipped(path: Path) -> Iterator[Place]:
    with zipfile.ZipFile(path) as archive:
        opener: Any = archive.open  # typed as IO[bytes], which is as good as BinaryIO
        for member in archive.infolist()[:MAX_MEMBERS]:
            yield Place(member.filename, partial(opener, member))


def _in_tar(path: Path) -> Iterator[Place]:
    with tarfile.open(path, "r:*") as archive:
        for member in members_within_limits(path, archive):
            stream = archive.extractfile(member) if member.isreg() else None
            if stream:  # a packed one goes from its start to its end, and not back
                yield in_memory(member.name, partial(bytes, stream.read(_HEADER_BYTES)))


def _keys(place: Place) -> set[str]:
    if not _may_be_dicom(place):
        return set()
    header = header_up_to_pixels(place)[0]
    patient = _text(header, "PatientID")
    keys = [("PatientID", _text(header, "IssuerOfPatientID"), patient)] if _tells(patient) else []
    # The study too: a copy of it may have lost the id, or have it from another issuer.
    uids = [(name, uid) for name in _UIDS if _tells(uid := _text(header, name))]
    return {sha256("\n".join(key).encode()).hexdigest() for key in (*keys, *uids[:1])}


def _may_be_dicom(place: Place) -> bool:
    with place.opener() as file:
        head = file.read(HEAD_BYTES)
    return is_dicom(head) or (PurePosixPath(place.label).suffix.lower() in DICOM_SUFFIXES and not has_image_magic(head))


def _text(header: Dataset, keyword: str) -> str:
    """Empty where there is none, or none that can be read."""
    with suppress(Exception):  # as above
        return normalize("NFKC", str(header.get(keyword) or "")).strip("\0 ")
    return ""


def _tells(text: str) -> bool:
    """Whether it tells one patient, or study, from others."""
    word = _NOT_LETTERS.sub("", text.casefold())
    return word not in _PLACEHOLDERS and not _FILLED.fullmatch(word)
