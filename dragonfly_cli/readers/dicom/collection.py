"""The DICOM files of a folder, a DICOMDIR, a zip or a tar, found by content.

Nothing is unpacked on disk: a member of an archive is read into memory when it is asked for, its name is a label and
never a path, links are not followed, and sizes are checked before anything is read. Non-goals: what the files hold.
"""

import lzma
import os
import tarfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cache, lru_cache, partial
from pathlib import Path, PurePosixPath
from typing import Any

import pydicom

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.dicom.failures import in_own_words
from dragonfly_cli.readers.dicom.places import Place, in_memory, missing, on_disk
from dragonfly_cli.readers.dicom.signature import (
    DICOMDIR_SOP_CLASS,
    HEAD_BYTES,
    WSI_SOP_CLASS,
    instance_uid,
    is_dicom,
    sop_class,
)
from dragonfly_cli.readers.signature import (
    DICOM_SUFFIXES,
    OTHER_SUFFIXES,
    RASTER_SUFFIXES,
    SLIDE_SUFFIXES,
    has_image_magic,
)

MAX_MEMBERS = 100_000
MAX_MEMBER_BYTES = 2**30
MAX_TOTAL_BYTES = 4 * 2**30  # of an archive when unpacked; a CT of the whole body has a tenth of it
NOT_SLICES = (DICOMDIR_SOP_CLASS, WSI_SOP_CLASS)
OTHER_KINDS = OTHER_SUFFIXES | RASTER_SUFFIXES | SLIDE_SUFFIXES
ARCHIVE_ERRORS = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    EOFError,
    OSError,
    ValueError,
    RuntimeError,  # a password; with NotImplementedError for a compression that Python has not
)
_PIECE_BYTES = 2**20
DICOMDIR_HINT = "give its folder, or copy the whole disc again"
ARCHIVE_HINT = "unpack it and give the folder, or pack it again"


def places_in(path: Path) -> list[Place]:
    """The DICOM files of a folder, a DICOMDIR or an archive, sorted by name. Raises InputError."""
    if path.is_dir():
        return folder_places(path)
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    if is_dicom(head):
        return dicomdir_places(path)
    with _archive_errors(path):
        return zip_places(path) if zipfile.is_zipfile(path) else tar_places(path)


def folder_places(folder: Path) -> list[Place]:
    """Every DICOM file below ``folder``, and what may have been one; hidden files, DICOMDIR and slides are left out."""
    found: list[Place] = []
    for parent, folders, names in os.walk(folder):
        folders[:] = sorted(name for name in folders if not name.startswith("."))
        files = (Path(parent, name) for name in sorted(names) if not name.startswith("."))
        found += [on_disk(file) for file in files if _is_file(file) and may_be_slice(file.name, _head_of(file))]
    return found


def dicomdir_places(path: Path) -> list[Place]:
    """The files that a DICOMDIR names; those that do not lie in its folder cannot be read."""
    with in_own_words(str(path), "its directory is damaged"):
        header = pydicom.dcmread(path)
        stored: Any = header.get_item("DirectoryRecordSequence")
        if len(stored.value) < getattr(stored, "length", 0):  # pydicom takes what is left of it for all
            raise InputError(f"cannot read the DICOM file {path}: its directory is cut short", DICOMDIR_HINT)
        records = header.DirectoryRecordSequence or []
        named = [record.get("ReferencedFileID") for record in records]
        parts = [[name] if isinstance(name, str) else list(name) for name in named if name]
    entries_of = cache(_entries)
    places = {str(PurePosixPath(*names)): _inside(path.parent, names, entries_of) for names in parts}
    return [
        on_disk(file) if file else missing(f"{path}:{name}")
        for name, file in places.items()
        if file is None or sop_class(_head_of(file) or b"") not in NOT_SLICES
    ]


def zip_places(path: Path) -> list[Place]:
    archive = zipfile.ZipFile(path)  # kept open by the places that refer to it
    members = [member for member in archive.infolist() if not member.is_dir()]
    sizes = [member.file_size for member in members]
    _check_sizes(path, len(sizes), max(sizes, default=0), sum(sizes))

    @lru_cache(maxsize=1)  # the frames of one member are asked for one after the other
    def read(member: zipfile.ZipInfo) -> bytes:
        return archive.read(member)

    shown = [member for member in members if not _is_hidden(member.filename)]
    heads = [_readable_head(archive, member) for member in shown]
    if shown and all(head is None for head in heads):
        raise zipfile.BadZipFile("no member can be read")
    slices = [m for m, head in zip(shown, heads, strict=True) if may_be_slice(m.filename, head)]
    if not slices and any(map(_is_zip, members)):
        raise InputError(f"cannot open the archive {path}: it holds other archives, and no DICOM files", ARCHIVE_HINT)
    slices.sort(key=lambda member: member.filename)
    return [_member(path, member.filename, partial(read, member)) for member in slices]


def may_hold_dicom(path: Path) -> bool:
    """Whether a zip holds DICOM files, of a series or a slide; or other zips, or what cannot be told, which is told."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist()[:MAX_MEMBERS] if not member.is_dir()]
            return any(_is_zip(member) or is_dicom(_head_in(archive, member)) for member in members)
    except ARCHIVE_ERRORS:
        return True


def instances_in(path: Path) -> set[tuple[bytes, int]]:
    """Instance UID, empty where there is none, and size of a zip's DICOM files; nothing if it cannot be looked into."""
    try:
        with zipfile.ZipFile(path) as archive:
            members = [member for member in archive.infolist()[: MAX_MEMBERS + 1] if not member.is_dir()]
            heads = [(_head_in(archive, member), member.file_size) for member in members]
    except ARCHIVE_ERRORS:
        return set()
    dicom = [(head, size) for head, size in heads if is_dicom(head) and sop_class(head) != DICOMDIR_SOP_CLASS]
    return {(instance_uid(head), size) for head, size in dicom}


def _is_zip(member: zipfile.ZipInfo) -> bool:
    return member.filename.lower().endswith(".zip")


def _is_hidden(name: str) -> bool:
    """Whether a member is what a Mac or a Unix keeps beside the files that are meant."""
    return any(part.startswith(".") or part == "__MACOSX" for part in PurePosixPath(name).parts if part != "..")


def _readable_head(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes | None:
    try:
        return _head_in(archive, member)
    except ARCHIVE_ERRORS:
        return None


def _head_in(archive: zipfile.ZipFile, member: zipfile.ZipInfo) -> bytes:
    with archive.open(member) as stream:
        return stream.read(HEAD_BYTES)


def tar_places(path: Path) -> list[Place]:
    """The members of a tar, compressed or not; sizes are checked while it is read, before each member is passed."""
    archive = tarfile.open(path, "r:*")  # noqa: SIM115 - kept open by the places that refer to it
    slices = []
    for member in members_within_limits(path, archive):
        stream = archive.extractfile(member) if member.isreg() else None
        if stream and not _is_hidden(member.name) and may_be_slice(member.name, stream.read(HEAD_BYTES)):
            slices.append(member)

    @lru_cache(maxsize=1)
    def read(member: tarfile.TarInfo) -> bytes:
        stream = archive.extractfile(member)
        return stream.read() if stream else b""

    slices.sort(key=lambda member: member.name)
    return [_member(path, member.name, partial(read, member), member.offset) for member in slices]


def _member(path: Path, name: str, load: Callable[[], bytes], at: int = 0) -> Place:
    def guarded() -> bytes:
        with _archive_errors(path):
            return load()

    return in_memory(f"{path}:{name}", guarded, at)


def members_within_limits(path: Path, archive: tarfile.TarFile) -> Iterator[tarfile.TarInfo]:
    """Each before it is passed; raises InputError once they are too many or too large."""
    total = 0
    for number, member in enumerate(archive, 1):
        total += member.size
        _check_sizes(path, number, member.size, total)
        yield member
    _refuse_lost_end(path, archive)


def _refuse_lost_end(path: Path, archive: tarfile.TarFile) -> None:
    """Raises InputError without the two blocks of zeros that end an archive.

    tarfile takes a cut between two members, or a damaged header, for the end.
    """
    stream: Any = archive.fileobj
    has_read_one = stream.tell() == archive.offset + tarfile.BLOCKSIZE
    if not has_read_one or stream.read(tarfile.BLOCKSIZE) != bytes(tarfile.BLOCKSIZE):
        raise InputError(f"cannot open the archive {path}: it is cut short, or damaged", ARCHIVE_HINT)
    padding = 0
    while block := stream.read(_PIECE_BYTES):  # only at its end does what is packed check itself
        padding += len(block)
        _check_sizes(path, 0, 0, padding)


def _check_sizes(path: Path, members: int, largest: int, total: int) -> None:
    if members > MAX_MEMBERS or largest > MAX_MEMBER_BYTES or total > MAX_TOTAL_BYTES:
        limits = f"{MAX_MEMBERS} files, {MAX_MEMBER_BYTES // 2**30} GiB a file or {MAX_TOTAL_BYTES // 2**30} GiB in all"
        raise InputError(f"cannot open the archive {path}: unpacked it holds more than {limits}", ARCHIVE_HINT)


@contextmanager
def _archive_errors(path: Path) -> Iterator[None]:
    try:
        yield
    except ARCHIVE_ERRORS:
        why = "it is damaged, locked by a password, or of an unknown kind"
        raise InputError(f"cannot open the archive {path}: {why}", ARCHIVE_HINT) from None


def _inside(folder: Path, names: list[str], entries_of: Callable[[Path], dict[str, str]]) -> Path | None:
    """The file that a DICOMDIR calls ``names``, if it is there and below ``folder``, as ``_entries`` know it.

    Discs are copied by systems that write names in lower case, or add a suffix.
    """
    name = PurePosixPath(*names)
    if name.is_absolute() or ".." in name.parts:
        return None
    found = folder
    for part in name.parts:
        found /= part if os.path.exists(found / part) else entries_of(found).get(part.lower(), part)  # noqa: PTH110
    is_there = os.path.isfile(found)  # noqa: PTH113 - of a name that is too long, Path's raises
    return found if is_there and found.resolve().is_relative_to(folder.resolve()) else None


def _entries(folder: Path) -> dict[str, str]:
    """What a folder holds, by its name in lower case, and by that without a suffix of DICOM files."""
    try:
        names = sorted(entry.name for entry in folder.iterdir())
    except OSError:
        return {}
    bare = {PurePosixPath(name).stem: name for name in names if PurePosixPath(name).suffix.lower() in DICOM_SUFFIXES}
    return {key.lower(): name for key, name in (bare | dict(zip(names, names, strict=True))).items()}


def may_be_slice(name: str, head: bytes | None) -> bool:
    """Whether a file is a DICOM image, or was meant as one and is to be told as unreadable; no head is such a one.

    A cut copy, or a disk that lost power, leaves nothing, or nothing but zeros.
    """
    suffix = PurePosixPath(name).suffix.lower()
    if head is None or not head.strip(b"\0"):
        return suffix not in OTHER_KINDS
    if suffix in DICOM_SUFFIXES and not has_image_magic(head):
        return sop_class(head) not in NOT_SLICES
    return is_dicom(head) and sop_class(head) not in NOT_SLICES


def _is_file(path: Path) -> bool:
    """No folder, pipe or device; a link to nowhere, and what may only be listed, is a file that cannot be read."""
    return os.path.isfile(path) or not os.path.exists(path)  # noqa: PTH110, PTH113 - Path's raise in the latter case


def _head_of(file: Path) -> bytes | None:
    try:
        with file.open("rb") as stream:
            return stream.read(HEAD_BYTES)
    except OSError:
        return None
