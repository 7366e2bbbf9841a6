"""Which rows belong together: those that share a patient, slide, group or picture, directly or by others."""

from collections import defaultdict

from dragonfly_cli.datasets.rows import GROUP_COLUMNS, Row

SHARED_COLUMNS = (*GROUP_COLUMNS, "image")


def shared_key(row: Row, column: str) -> str | None:
    """What rows that belong together by one of ``SHARED_COLUMNS`` have in common; None where there is nothing."""
    if column == "image":
        return row.picture_hash or str(row.picture.path.resolve())
    return row.groups.get(column)


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
            if key := shared_key(row, column):
                mine, theirs = root(index), root(first.setdefault((column, key), index))
                parent[max(mine, theirs)] = min(mine, theirs)
    groups: dict[int, list[Row]] = defaultdict(list)
    for index, row in enumerate(rows):
        groups[root(index)].append(row)
    return list(groups.values())
