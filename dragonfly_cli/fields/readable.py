"""What can be read of a source's fields; those that cannot be are left out, which is warned of."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import TypeVar

from dragonfly_cli.errors import ChangedError, InputError
from dragonfly_cli.fields.field import Field
from dragonfly_cli.readers.ahead import read_in_turn
from dragonfly_cli.readers.source import TOO_LATE, UNREAD, Source

Read = TypeVar("Read")


def readable(
    source: Source,
    fields: Sequence[Field],
    read: Callable[[Field], Read],
    warnings: list[str],
    is_late: Callable[[], bool] = lambda: False,
) -> Generator[Read]:
    """Yields what ``read`` gives of every field that can be read, at least one; the next is being read meanwhile.

    Once ``is_late`` says so and there is one, no other is begun. What is left out is told in ``warnings``. Raises
    InputError when none can be read, and ChangedError when the file has changed meanwhile. Close the generator after
    use.
    """
    unread: list[Field] = []
    with closing(read_in_turn(read, fields)) as coming:
        for number, (field, reading) in enumerate(zip(fields, coming, strict=True)):
            if number > len(unread) and is_late():
                warnings.append(f"--time-limit: {len(fields) - number} fields {TOO_LATE}")
                break
            try:
                one = reading.result()
            except ChangedError:
                raise
            except InputError:
                unread.append(field)
                if len(unread) == len(fields):
                    raise
            else:
                yield one
    if unread:
        warnings.append(_unread_warning(source, unread, len(fields)))


def _unread_warning(source: Source, unread: Sequence[Field], looked_at: int) -> str:
    what = "frames" if source.frames > 1 else "fields"
    numbers = ", ".join(str(field.frame if source.frames > 1 else field.id) for field in unread)
    return f"{len(unread)} of {looked_at} {what} {UNREAD}: {numbers}"
