"""Which frames of several are looked at, as integers: evenly spread ones, or those that a user names."""

from collections.abc import Sequence

from dragonfly_cli.errors import UsageError
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source, spatial_order

FRAMES_LOOKED_AT = 8
SLICE_HINT = "give a number from 0, or FIRST:LAST:STEP, the last not included, such as 10:60:5"
MOST_TILES = 100


def spread(count: int, most: int) -> list[int]:
    """At most ``most`` of the numbers below ``count``, evenly spread, each in the middle of its share."""
    most = min(most, count)
    return [(2 * number + 1) * count // (2 * most) for number in range(most)]


def parse_slices(text: str) -> int | slice:
    """``N`` or ``A:B:STEP``, each part of which may be left out. Raises UsageError."""
    parts = text.split(":")
    if len(parts) > 3 or not all(part == "" or part.isdecimal() for part in parts) or not text.strip(":"):
        raise UsageError(f"--slice {text!r} is not a slice", SLICE_HINT)
    numbers = [int(part) if part else None for part in parts]
    if len(numbers) == 1:
        return numbers[0] or 0
    if len(numbers) == 3 and numbers[2] == 0:
        raise UsageError(f"--slice {text!r}: the step must be above 0", SLICE_HINT)
    return slice(*numbers)


def parse_montage(text: str) -> tuple[int, int]:
    """``COLUMNSxROWS``. Raises UsageError."""
    columns, cross, rows = text.lower().partition("x")
    if not (cross and columns.isdecimal() and rows.isdecimal() and 0 < int(columns) * int(rows) <= MOST_TILES):
        raise UsageError(f"--montage {text!r} is not COLUMNSxROWS of at most {MOST_TILES} tiles", "for example 4x3")
    return int(columns), int(rows)


def pick(order: Sequence[int], wanted: str, name: str) -> list[int]:
    """The frames that ``--slice`` names, of ``order``, which is spatial. Raises UsageError where there is none."""
    which = parse_slices(wanted)
    chosen = order[which] if isinstance(which, slice) else order[which : which + 1]
    if not chosen and isinstance(which, slice) and which.start is not None and which.start < len(order):
        raise UsageError(f"--slice {wanted}: it ends before it begins", SLICE_HINT)
    if not chosen:
        raise UsageError(f"--slice {wanted}: {name} has {len(order)}", f"slices count from 0 to {len(order) - 1}")
    return list(chosen)


def frames_to_look_at(source: Source, looking: LookOptions, tiles: int | None = None) -> list[int]:
    """The frames that were named, all of them, or else as many as the budget has; of either no more than ``tiles``.

    Those that are left are spread evenly.
    """
    if looking.frame is not None:
        check_frame(source, looking.frame)
        return [looking.frame]
    order = spatial_order(source)
    chosen = list(order) if looking.slices is None else pick(order, looking.slices, str(source.path))
    limit = looking.budget or (len(chosen) if looking.slices else tiles or FRAMES_LOOKED_AT)
    shown = [chosen[number] for number in spread(len(chosen), min(limit, tiles or limit))]
    if len(shown) < len(chosen):
        more = "a --montage of more tiles" if len(shown) == tiles else "--budget"
        source.warnings.append(
            f"{len(shown)} of {len(chosen)} frames were looked at; {more} looks at more, --slice or --frame at others"
        )
    return shown


def check_frame(source: Source, frame: int) -> None:
    """Raises UsageError for a frame that the source does not have."""
    if not 0 <= frame < source.frames:
        raise UsageError(
            f"--frame {frame}: {source.path} has {source.frames} frame{'s' * (source.frames > 1)}",
            f"give one from 0 to {source.frames - 1}" if source.frames > 1 else "leave it out: there is one picture",
        )
