"""Which rows are learnt from and which are held out, such that no patient, slide or picture is in both."""

import random
from dataclasses import dataclass
from pathlib import Path

from dragonfly_cli.datasets.groups import IN_DICOM, SHARED_COLUMNS, connected, shared_keys
from dragonfly_cli.datasets.rows import Row
from dragonfly_cli.errors import InputError

_TOGETHER = "all belong together"


@dataclass(frozen=True)
class Split:
    """Rows in their order in the file; ``by`` says where the division comes from."""

    train: list[Row]
    held_out: list[Row]
    by: str

    def summary(self) -> str:
        """How many rows are learnt from, and where some are held out, how many and by what."""
        rows = "1 row" if len(self.train) == 1 else f"{len(self.train)} rows"
        if not self.held_out:
            return f"{rows}, none held out ({self.by})" if self.by == _TOGETHER else rows
        return f"{rows}, {len(self.held_out)} held out ({self.by})"

    def only(self, path: Path, numbers: set[int], left_out: str = "") -> "Split":
        """The split with the rows of these numbers only; raises InputError when none is left to learn from.

        ``left_out`` names some of the others.
        """
        train, held_out = ([row for row in rows if row.number in numbers] for rows in (self.train, self.held_out))
        if not train:
            why = f": {left_out}" if left_out else ""
            raise InputError(
                f"{path}: no row is left to learn from{why}", "see its column split, and the rows left out"
            )
        return Split(train, held_out, self.by)


def split_rows(path: Path, rows: list[Row], share: float, seed: int) -> Split:
    """As the column ``split`` says, or else a ``share`` of the rows drawn by ``seed``, whole groups at a time.

    Raises InputError for a leak - a patient, slide, group or picture that is on both sides, as the columns or the DICOM
    headers of the pictures have it - or where only some rows say on which side they are.
    """
    told = [row for row in rows if row.is_held_out is not None]
    if not told:
        return _drawn(rows, share, seed)
    if len(told) < len(rows):
        missing = next(row.number for row in rows if row.is_held_out is None)
        raise InputError(
            f"{path}: column split is given in some rows only, not in row {missing}", "fill the column, or remove it"
        )
    split = Split(
        [row for row in rows if not row.is_held_out], [row for row in rows if row.is_held_out], by="column split"
    )
    _refuse_leak(path, split)
    return split.only(path, {row.number for row in rows})


def _refuse_leak(path: Path, split: Split) -> None:
    for column in SHARED_COLUMNS:
        seen = {key: row.number for row in split.train for key in shared_keys(row, column)}
        leaks = [row for row in split.held_out if any(key in seen for key in shared_keys(row, column))]
        if leaks:
            first = min(seen[key] for key in shared_keys(leaks[0], column) if key in seen)
            raise _leak(path, column, len(leaks), f"first row {leaks[0].number} with row {first}")


def _leak(path: Path, column: str, count: int, first: str) -> InputError:
    """No message quotes a value: it may be a patient's name."""
    if column == IN_DICOM:
        return InputError(
            f"{path}: column image leaks: {count} held-out rows show the same patient or study as training rows, "
            f"by their DICOM headers, {first}",
            "put all rows of one patient on the same side of column split; if they are different ones, say so in a "
            "column patient of every row",
        )
    return InputError(
        f"{path}: column {column} leaks: {count} held-out rows share theirs with training rows, {first}",
        f"put all rows of one {column} on the same side of column split",
    )


def _drawn(rows: list[Row], share: float, seed: int) -> Split:
    groups = connected(rows)
    random.Random(seed).shuffle(groups)
    wanted = share * len(rows)
    held_out: set[int] = set()
    for group in groups[1:]:  # one is always left to learn from
        if len(held_out) + len(group) <= wanted:
            held_out |= {row.number for row in group}
    if wanted and not held_out and len(groups) > 1:  # rather too many than none, and as few as can be
        held_out = {row.number for row in min(groups, key=len)}
    columns = (column for column in SHARED_COLUMNS if any(shared_keys(row, column) for row in rows))
    return Split(
        [row for row in rows if row.number not in held_out],
        [row for row in rows if row.number in held_out],
        by=_TOGETHER if wanted and len(rows) > len(groups) == 1 else f"drawn by {', '.join(columns)}",
    )
