"""Which rows belong together: those that share a patient, slide, group or picture, directly or by others."""

from collections import defaultdict
from collections.abc import Collection

from dragonfly_cli.datasets.rows import GROUP_COLUMNS, Row

IN_DICOM = "patient in DICOM"  # no column: what the pictures' own files say
SHARED_COLUMNS = (*GROUP_COLUMNS, "image", IN_DICOM)


def shared_keys(row: Row, column: str) -> Collection[str]:
    """What rows have in common, at least one of it, that belong together by one of ``SHARED_COLUMNS``.

    None of it may be shown.
    """
    if column == "image":
        return (row.picture_hash or str(row.picture.path.resolve()),)
    if column == IN_DICOM:
        return row.patients
    return (row.groups[column],) if column in row.groups else ()


def connected(rows: list[Row]) -> list[list[Row]]:
    """The groups, each row in one of them, in the order of their first rows."""
    parent = list(range(len(rows)))

    def root(index: int) -> int:
        while parent[index] != index:
            parent[index] = index = parent[parent[index]]
        return index

    first: dict[tuple[str, str], int] = {}
    for index, row in enumerate(rows):
        for column in SHARED_COLUMNS:
            for key in shared_keys(row, column):
                mine, theirs = root(index), root(first.setdefault((column, key), index))
                parent[max(mine, theirs)] = min(mine, theirs)
    groups: dict[int, list[Row]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[root(index)].append(row)
    return list(groups.values())
