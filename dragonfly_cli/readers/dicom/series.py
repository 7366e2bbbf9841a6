"""Slices into series, as they lie in the patient: grouped, told apart, sorted. Geometry alone: no file is opened but
to find out whether two that say the same of themselves are copies.

A series here is what can be looked at as one stack: the slices of one SeriesInstanceUID of one patient that have
size, spacing and orientation in common, localizers apart. They are sorted by their position along the normal of their
plane, not by number. UIDs and descriptions group and are never shown: a series is told by its number and its technical
facts.
"""

import math
import re
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from itertools import groupby, pairwise
from operator import itemgetter
from statistics import median
from typing import Any

from dragonfly_cli.errors import UsageError
from dragonfly_cli.readers.dicom.index import Slice, Vector
from dragonfly_cli.readers.dicom.places import content_of
from dragonfly_cli.readers.dicom.terms import told_modality

SAME_DIRECTION = 0.02  # direction cosines within about a degree
SAME_POSITION_MM = 0.01
ROUNDING_MM = 0.001  # of the finest sections a step is larger
SAME_SPACING = 1e-3  # of the spacing
GAP = 1.5  # a step this many times the usual one has a slice missing
PLANES = ("sagittal", "coronal", "axial")  # by the axis of the patient that the normal follows: x, y, z
MOSTLY = 0.9  # of the normal's length along that axis; less is oblique


@dataclass(frozen=True)
class Series:
    """A stack of slices in order; ``notes`` say what is odd about it, one sentence each. ``copies`` were left out."""

    number: int
    slices: tuple[Slice, ...]
    notes: tuple[str, ...] = ()
    copies: tuple[Slice, ...] = ()

    @property
    def first(self) -> Slice:
        return self.slices[0]

    @property
    def uid(self) -> str:
        return self.first.series

    def facts(self) -> dict[str, Any]:
        """For ``info``: an allow-list."""
        return {
            "number": self.number,
            "modality": told_modality(self.first.modality),
            "width": self.first.size_wh[0],
            "height": self.first.size_wh[1],
            "slices": len(self.slices),
            "spacing_mm": [*self.first.spacing, step_of(self.slices)] if self.first.spacing else None,
            "orientation": plane_of(self.first.orientation),
            "localizer": self.first.is_localizer,
        }


def group(slices: Iterable[Slice]) -> list[Series]:
    """Every stack among ``slices``, numbered from 1 in the order in which their files come."""
    stacks: dict[Any, list[list[Slice]]] = defaultdict(list)
    for each in slices:
        key = each.series, each.is_localizer, each.size_wh
        same = next((stack for stack in stacks[key] if _belong_together(stack[0], each)), None)
        if same is None:
            stacks[key].append([each])
        else:  # far from the origin a small turn would move a slice past its neighbours
            same.append(replace(each, orientation=same[0].orientation))
    found = [stack for alike in stacks.values() for stack in alike]
    return [_sorted_series(number, stack) for number, stack in enumerate(found, 1)]


def choose(series: Sequence[Series], wanted: str | None, name: str) -> tuple[Series, list[str]]:
    """The series to look at, and what has to be said about the choice.

    ``wanted`` is a number or a UID. Without it the one with most slices is taken, a localizer only if there is no
    other. Raises UsageError for one that is not there; ``name`` names the input in it.
    """
    if wanted is None:
        chosen = max(series, key=lambda each: (not each.first.is_localizer, len(each.slices), -each.number))
        return chosen, _others(chosen, series)
    matching = [each for each in series if wanted in (str(each.number), each.uid)]
    if not matching:
        raise UsageError(f"--series {wanted}: {name} has no such series", f"it has {_listed(series)}")
    chosen = max(matching, key=lambda each: len(each.slices))
    return chosen, _others(chosen, matching)


def _others(chosen: Series, series: Sequence[Series]) -> list[str]:
    others = [each for each in series if each is not chosen]
    if not others:
        return []
    return [f"series {chosen.number} of {len(series)} was looked at; --series chooses another: {_listed(others)}"]


def _listed(series: Sequence[Series], most: int = 12) -> str:
    texts = [
        f"{each.number} ({told_modality(each.first.modality) or 'no modality'}, {len(each.slices)} "
        f"slice{'s' * (len(each.slices) > 1)}, {each.first.size_wh[0]} x {each.first.size_wh[1]}"
        f"{', localizer' * each.first.is_localizer})"
        for each in series[:most]
    ]
    return "; ".join(texts + ([f"and {len(series) - most} more"] if len(series) > most else []))


def _sorted_series(number: int, stack: list[Slice]) -> Series:
    """Copies of a slice taken out, the rest in order."""
    notes = []
    kept = _without_copies(stack)
    taken = set(map(id, kept))
    copies = tuple(each for each in stack if id(each) not in taken)
    if copies:
        notes.append(f"{_files(len(copies))} left out: a copy of a slice that is there already")
    positions = [each.along_normal for each in kept]
    if len(kept) > 1 and any(position is None for position in positions):
        if any(position is not None for position in positions) or not _is_one_file(kept):
            notes.append(
                "positions are missing: the slices are in the order of their instance numbers, or of their names"
            )
        return Series(number, tuple(sorted(kept, key=_by_number)), tuple(notes), copies)
    ordered = _by_place(kept)
    return Series(number, tuple(ordered), tuple(notes + _oddities(ordered)), copies)


def _without_copies(stack: list[Slice]) -> list[Slice]:
    """One of each that are the same, by what they say or, where that is too little, by the bytes of their files.

    Some anonymisers give all slices one instance UID, and films have neither position nor always a number.
    """
    alike: dict[object, list[Slice]] = defaultdict(list)
    for each in stack:
        named = each.instance_uid, each.frame, each.position, each.number
        alike[named if each.instance_uid else id(each)].append(each)
    kept: list[Slice] = []
    for some in alike.values():
        is_placed = some[0].position is not None and some[0].number is not None
        if len(some) == 1 or is_placed:
            kept.append(some[-1])
        else:
            kept += {content_of(each.place): each for each in some}.values()
    return kept


def _by_place(slices: list[Slice]) -> list[Slice]:
    """Along the normal; those that lie at one place, but for rounding, by their numbers."""
    places: list[list[Slice]] = []
    begins = -math.inf
    for position, each in sorted(((each.along_normal or 0.0, each) for each in slices), key=itemgetter(0)):
        if position - begins > ROUNDING_MM:
            places.append([])
            begins = position
        places[-1].append(each)
    return [each for place in places for each in sorted(place, key=_by_number)]


def _oddities(ordered: list[Slice]) -> list[str]:
    """What a reader of the stack must know about its positions."""
    steps = _steps(ordered)
    shared = sum(step <= SAME_POSITION_MM for step in steps)
    moved = [step for step in steps if step > SAME_POSITION_MM]
    gaps = sum(step > GAP * median(moved) for step in moved) if len(moved) > 2 else 0
    notes = [f"{shared} of {len(ordered)} slices lie where another slice lies{_one_of_each(ordered)}"] if shared else []
    return notes + ([f"the distance between slices is not even: {gaps} gap{'s' * (gaps > 1)}"] if gaps else [])


def _one_of_each(ordered: list[Slice]) -> str:
    """How to look at one picture of every place, where each has as many."""
    positions = [each.along_normal or 0.0 for each in ordered]
    counts = [len(list(place)) for _, place in groupby(positions, lambda z: round(z / SAME_POSITION_MM))]
    return f"; --slice 0::{counts[0]} takes the first of each place, 1::{counts[0]} the next" * (len(set(counts)) == 1)


def step_of(slices: Sequence[Slice]) -> float | None:
    """The usual distance between neighbouring slices in millimetres."""
    moved = [step for step in _steps(slices) if step > SAME_POSITION_MM]
    return round(median(moved), 4) if moved else None


def _steps(slices: Sequence[Slice]) -> list[float]:
    positions = [each.along_normal for each in slices]
    return [b - a for a, b in pairwise(positions) if a is not None and b is not None]


def plane_of(orientation: Vector | None) -> str | None:
    """``axial``, ``coronal``, ``sagittal`` or ``oblique``; None when the orientation is not known."""
    if orientation is None:
        return None
    (a, b, c), (d, e, f) = orientation[:3], orientation[3:]
    normal = [abs(b * f - c * e), abs(c * d - a * f), abs(a * e - b * d)]
    axis = normal.index(max(normal))
    length = sum(part * part for part in normal) ** 0.5
    return PLANES[axis] if length and normal[axis] >= MOSTLY * length else "oblique"


def _belong_together(a: Slice, b: Slice) -> bool:
    """Whether they lie in parallel in one patient; what a file does not say contradicts nothing.

    Some programs that remove names give all films one series UID, others every file a study of its own.
    """
    are_films = a.position is None and b.position is None
    are_of_one = _may_be_same(a.patient, b.patient) and (not are_films or _may_be_same(a.study, b.study))
    return are_of_one and _is_as_large(a, b) and _is_parallel(a, b)


def _may_be_same(one: str, other: str) -> bool:
    return not one or not other or one == other


def _is_as_large(a: Slice, b: Slice) -> bool:
    """Whether the pixels of two slices have one size, but for rounding."""
    if a.spacing is None or b.spacing is None:
        return a.spacing is b.spacing
    return all(math.isclose(x, y, rel_tol=SAME_SPACING) for x, y in zip(a.spacing, b.spacing, strict=True))


def _is_parallel(a: Slice, b: Slice) -> bool:
    """Whether two slices have one orientation, but for what rounding and a breath do to it."""
    if a.orientation is None or b.orientation is None:
        return a.orientation is b.orientation
    return all(abs(x - y) <= SAME_DIRECTION for x, y in zip(a.orientation, b.orientation, strict=True))


def _is_one_file(slices: Sequence[Slice]) -> bool:
    return len({each.place for each in slices}) == 1


def _by_number(each: Slice) -> tuple[Any, ...]:
    """By instance number, then by name with its numbers as numbers, then by frame."""
    parts = [int(part) if part.isdecimal() else part for part in re.split(r"(\d+)", each.place.label)]
    return each.number is None, each.number or 0, [(isinstance(part, str), part) for part in parts], each.frame


def _files(count: int) -> str:
    return f"{count} file{'s were' if count > 1 else ' was'}"
