"""Which rows show the same picture or patient, also under other names: by all that is in their files."""

import hashlib
from dataclasses import replace
from pathlib import Path

from dragonfly_cli.datasets.rows import Row
from dragonfly_cli.errors import InputError
from dragonfly_cli.readers import exists
from dragonfly_cli.readers.fingerprint import files_below, fingerprint, spread_hash

_OF_NOTHING = hashlib.sha256().hexdigest()


def identified(rows: list[Row]) -> tuple[list[Row], dict[Path, InputError]]:
    """The rows with the hash of their picture and whom it shows; those whose picture cannot be read, or has nothing in
    it, as they are, with the reason by path. Whom one shows may never be told.
    """
    from dragonfly_cli.readers.dicom.patients import patients_in  # with pydicom

    known: dict[Path, tuple[str, frozenset[str]]] = {}
    unreadable: dict[Path, InputError] = {}
    for path in dict.fromkeys(row.picture.path for row in rows):
        try:
            known[path] = _hash_of_picture(path), patients_in(path)
        except InputError as error:
            unreadable[path] = error
    told = [
        replace(row, picture_hash=known[row.picture.path][0], patients=known[row.picture.path][1])
        if row.picture.path in known
        else row
        for row in rows
    ]
    return _without_headers_that_columns_overrule(told), unreadable


def _without_headers_that_columns_overrule(rows: list[Row]) -> list[Row]:
    """Headers count but between two rows whose columns tell the patient: a data set may have one made-up id in all of
    its files.
    """
    counting = frozenset[str]().union(*(row.patients for row in rows if "patient" not in row.groups))
    return [replace(row, patients=row.patients & counting) for row in rows]


def hash_of_file(path: Path) -> str:
    """Raises InputError."""
    return fingerprint(path)["sha256"] or spread_hash(path)


def hash_of_all(hashes: list[str]) -> str:
    return hashlib.sha256("".join(f"{each}\n" for each in hashes).encode()).hexdigest()


def _hash_of_picture(path: Path) -> str:
    """Of a file, or of a folder with a DICOM series or slide. Raises InputError."""
    is_folder = exists(path) and path.is_dir()
    hashes = [hash_of_file(file) for file in (files_below(path) if is_folder else [path])]
    if all(each == _OF_NOTHING for each in hashes):  # whatever holds nothing would be the same picture
        raise InputError(f"cannot read {path}: it is empty", "copy or export it again")
    return hash_of_all(hashes) if is_folder else hashes[0]
