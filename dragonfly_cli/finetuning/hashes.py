"""What tells data and its pictures apart, also under other names: hashes of all that is in their files."""

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

from dragonfly_cli.datasets.data_file import Data
from dragonfly_cli.errors import InputError
from dragonfly_cli.readers import exists
from dragonfly_cli.readers.fingerprint import files_below, fingerprint

_OF_NOTHING = hashlib.sha256().hexdigest()


def data_hashes(data: Data) -> dict[str, Any]:
    """The hash of the data file, and one of all pictures together; every row gets that of its own picture.

    Rows are also told whom their picture shows, of which nothing is returned. Those whose picture cannot be opened, or
    has nothing in it, are moved to the bad ones.
    """
    from dragonfly_cli.readers.dicom.patients import patients_in  # with pydicom

    pictures: dict[Path, set[int]] = {}
    for row in data.rows:
        pictures.setdefault(row.picture.path, set()).add(row.number)
    hashes, patients = {}, {}
    for path, numbers in pictures.items():
        try:
            hashes[path] = _of_picture(path)
            patients[path] = patients_in(path)
        except InputError as error:
            data.leave_out(numbers, error.message)
    data.rows = [
        replace(row, picture_hash=hashes[row.picture.path], patients=patients[row.picture.path]) for row in data.rows
    ]
    return {
        "file": _of_file(data.path),
        "images": len(hashes),
        # in the order of the file, which holds their names: the folder of both may have another name later
        "images_sha256": _of_all(list(hashes.values())),
    }


def _of_picture(path: Path) -> str:
    """Of a file, or of a folder with a DICOM series or slide. Raises InputError."""
    is_folder = exists(path) and path.is_dir()
    hashes = [_of_file(file) for file in (files_below(path) if is_folder else [path])]
    if all(each == _OF_NOTHING for each in hashes):  # whatever holds nothing would be the same picture
        raise InputError(f"cannot read {path}: it is empty", "copy or export it again")
    return _of_all(hashes) if is_folder else hashes[0]


def _of_file(path: Path) -> str:
    hashes = fingerprint(path)
    return hashes["sha256"] or hashes["quickhash"] or ""


def _of_all(hashes: list[str]) -> str:
    return hashlib.sha256("".join(f"{each}\n" for each in hashes).encode()).hexdigest()
