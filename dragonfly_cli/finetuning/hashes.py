"""What data consists of, for the record of a run: hashes of the data file and of all its pictures."""

from typing import Any

from dragonfly_cli.datasets.data_file import Data
from dragonfly_cli.datasets.identity import hash_of_all, hash_of_file, identified


def data_hashes(data: Data) -> dict[str, Any]:
    """The hash of the data file, and one of all pictures together; every row is told which picture it shows, and whom.

    Rows whose picture cannot be opened, or has nothing in it, are moved to the bad ones.
    """
    rows, unreadable = identified(data.rows)
    data.rows = rows
    data.leave_out({row.number: unreadable[row.picture.path].message for row in rows if row.picture.path in unreadable})
    hashes = list({row.picture.path: row.picture_hash or "" for row in data.rows}.values())
    return {
        "file": hash_of_file(data.path),
        "images": len(hashes),
        # in the order of the file, which holds their names: the folder of both may have another name later
        "images_sha256": hash_of_all(hashes),
    }
