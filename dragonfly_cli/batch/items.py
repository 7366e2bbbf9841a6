"""What a run is about: its items, each one image with the options it is opened with and the questions asked of it.

Sources are folders, globs, single files, manifests (``manifest``) and ``-``, a list of paths on standard input. Which
files of a folder are images, and which are slices of a series, is decided in ``readers``. The order is fixed: that of
the sources, and of paths within.
"""

import codecs
import glob
import hashlib
import os
import random
import shlex
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, fields, replace
from functools import cache
from pathlib import Path
from typing import Any

from dragonfly_cli.asking import question_maker
from dragonfly_cli.batch.manifest import ROW_GROUPS, SUFFIXES, ManifestRow, read_manifest
from dragonfly_cli.batch.options import BatchOptions, SelectOptions
from dragonfly_cli.batch.result import Key, Result, key_of
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.fields import arranged, check_looking, spread
from dragonfly_cli.option_groups import parsed_options
from dragonfly_cli.option_values import Control
from dragonfly_cli.options import FormOptions, LookOptions, OpenOptions
from dragonfly_cli.output.terminal import say
from dragonfly_cli.readers import Source, exists
from dragonfly_cli.readers.inputs import Input, list_inputs, lone_input, named_input, zipped_copies

_COPIES_NAMED = 5
STDIN = Path("-")


@dataclass(frozen=True)
class Item:
    """One image, how it is opened and looked at, and what is asked of it; with ``control``, also without the picture.

    ``row_options`` is what a manifest set for it alone, as text for the table: ``frame=3 slide_mpp=0.25``.
    """

    input: Input
    questions: tuple[Question, ...]
    opening: OpenOptions
    looking: LookOptions
    row_options: str = ""
    control: Control = Control.none

    @property
    def image(self) -> str:
        return self.input.name

    @property
    def place(self) -> tuple[str, str]:
        """What tells it from every other item of a run."""
        return self.image, self.row_options

    def open(self) -> Source:
        """The image, ready to be looked at; raises what readers raise."""
        return arranged(self.input.open(self.opening), self.looking)

    @property
    def keys(self) -> list[Key]:
        return [self.key(question) for question in self.questions]

    def key(self, question: Question) -> Key:
        return key_of(self.image, question.text, self.row_options)

    def failures(self, code: int, why: str, but: int = 0) -> list[Result]:
        """A failed result for every question but the first few."""
        return [Result(key, None, code, why) for key in self.keys[but:]]

    def asking(self, questions: Iterable[Question]) -> "Item":
        return replace(self, questions=tuple(questions))


@dataclass(frozen=True)
class Shard:
    """The ``index``-th of ``count`` parts of a run, counted from 0."""

    index: int = 0
    count: int = 1

    def __str__(self) -> str:
        return f"{self.index + 1}/{self.count}"


def find_items(sources: list[Path], questions: list[Question], options: BatchOptions) -> list[Item]:
    """Every image below the sources, each once, with its questions; a manifest may set its own.

    An image with other row options is another item; a question asked twice of the same item is asked once. A file that
    is named from here and from the root, or lies behind a link too, goes by the name that comes first. A zip whose
    pictures lie unpacked among the others is left out, which is told.
    Raises NoInputError where there is no image, UsageError where nothing is asked about one, and what reading a
    manifest raises.
    """
    like = Item(_NOTHING, tuple(questions), options.opening, options.looking, "", options.answering.control)
    found = _without_copies(list(_all_items(sources, like, options.form)))
    if not found:
        raise NoInputError(f"no image below {', '.join(map(str, sources))}", "check the folders and lists")
    if unasked := next((item for item in found if not item.questions), None):
        template, of_questions = options.form.template, "--type, --options, --scale and --schema are of questions"
        why = f"template {template} has none" if template else of_questions
        raise UsageError(f"there is no question about {unasked.image}: {why}", 'give one: -q "Is there necrosis?"')
    return joined(found)


def items_of_rows(rows: Iterable[ManifestRow], options: BatchOptions) -> list[Item]:
    """An item for each row, which must have a question; raises UsageError for options that cannot be understood."""
    like = Item(_NOTHING, (), options.opening, options.looking, "", options.answering.control)
    return list(_of_rows(rows, like, options.form))


def joined(items: Iterable[Item]) -> list[Item]:
    """Each once, by where it lies and by its name, with all that is asked about it."""
    asked: dict[tuple[str, str], dict[str | None, Question]] = {}
    first: dict[tuple[str, str], Item] = {}
    named: dict[tuple[str, str], tuple[str, str]] = {}
    for item in items:
        place = named.setdefault(item.place, (item.input.place, item.row_options))
        first.setdefault(place, item)
        asked.setdefault(place, {}).update({question.text: question for question in item.questions})
    return [item.asking(asked[place].values()) for place, item in first.items()]


def with_controls(items: list[Item], sample: int | None) -> list[Item]:
    """With a sample, only so many items, spread evenly, are asked about a second time with nothing to be seen."""
    if sample is None:
        return items
    chosen = set(spread(len(items), sample))
    kinds = [Control.blank if item.control is Control.none else item.control for item in items]
    return [
        replace(item, control=kind if number in chosen else Control.none)
        for number, (item, kind) in enumerate(zip(items, kinds, strict=True))
    ]


def select(items: list[Item], options: SelectOptions, seed: int) -> list[Item]:
    """The first ``limit``, or ``sample`` of them drawn by chance, in their order."""
    if options.sample is not None and options.sample < len(items):
        chosen = random.Random(seed).sample(range(len(items)), options.sample)
        items = [items[number] for number in sorted(chosen)]
    return items[: options.limit]


def shard_of(items: list[Item], shard: Shard) -> list[Item]:
    """Every ``count``-th item, so that neighbours, which are often alike in size, are spread."""
    return items[shard.index :: shard.count]


def digest(keys: Iterable[Key]) -> str:
    """A hash of what is asked of what, in which order: shards of one run have it in common."""
    return hashlib.sha256("\n".join("\t".join(key) for key in keys).encode()).hexdigest()


def read_shard(text: str | None, environment: Mapping[str, str] = os.environ) -> Shard:
    """``I/N`` counted from 1, or ``slurm`` for the place of this task in its job array; raises UsageError."""
    if text is None:
        return Shard()
    number, count = _of_slurm(environment) if text == "slurm" else text.partition("/")[::2]
    if not (number.isdecimal() and count.isdecimal() and 1 <= int(number) <= int(count)):
        raise UsageError(f"--shard {text}: it must be I/N with I from 1 to N", "give 1/4 for the first of four parts")
    return Shard(int(number) - 1, int(count))


def _of_slurm(environment: Mapping[str, str]) -> tuple[str, str]:
    names = "SLURM_ARRAY_TASK_ID", "SLURM_ARRAY_TASK_MIN", "SLURM_ARRAY_TASK_MAX", "SLURM_ARRAY_TASK_COUNT"
    values = [environment.get(name, "") for name in names]
    if not all(value.isdecimal() for value in values):
        raise UsageError("--shard slurm: this is not a task of a Slurm job array", "submit it with: sbatch --array=1-N")
    task, first, last, count = map(int, values)
    if last - first + 1 != count:
        raise UsageError(
            f"--shard slurm: the array from {first} to {last} has {count} tasks", "number its tasks without gaps"
        )
    return str(task - first + 1), str(count)


def _all_items(sources: list[Path], like: Item, form: FormOptions) -> Iterator[Item]:
    for source in sources:
        if source == STDIN:
            for named in _paths_on_stdin():  # one that is not there is to be reported, not to stop the others
                yield from _items_below(named, like) if exists(named) else [replace(like, input=lone_input(named))]
        elif source.suffix.lower() in SUFFIXES and source.is_file():
            yield from _of_rows(read_manifest(source), like, form)
        else:
            items = list(_items_below(source, like))
            if not items and len(sources) > 1:
                say(f"warning: no image below {source}")
            yield from items


def _without_copies(items: list[Item]) -> list[Item]:
    copies = zipped_copies(item.input for item in items)
    if copies:
        told = ", ".join(map(str, sorted(copies)[:_COPIES_NAMED])) + ", ..." * (len(copies) > _COPIES_NAMED)
        say(f"note: zipped and unpacked among the images, and therefore asked about once: {told}")
    return [item for item in items if copies.isdisjoint(item.input.files)]


def _items_below(source: Path, like: Item) -> Iterator[Item]:
    found = [source] if exists(source) else _matches(source)
    for path in found:
        yield from (replace(like, input=each) for each in list_inputs(path))


def _matches(source: Path) -> list[Path]:
    if not glob.has_magic(str(source)):
        return [source]
    matches = glob.glob(str(source), recursive=True)  # noqa: PTH207 - Path.glob takes no absolute pattern
    return sorted(map(Path, matches)) or [source]


def _paths_on_stdin() -> list[Path]:
    """One a line, or with a zero byte after each, as ``find -print0`` writes them."""
    data = sys.stdin.buffer.read().removeprefix(codecs.BOM_UTF8)
    names = data.split(b"\0") if b"\0" in data else data.splitlines()
    paths = [Path(os.fsdecode(name)) for name in names if name.strip()]
    are_letters = b"\0" in data and all(len(name) < 2 for name in names) and not all(map(exists, paths))
    if are_letters or data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE, b"\0")):
        raise InputError("cannot read the paths on stdin: they are not in UTF-8", "write the list in UTF-8")
    return paths


def _of_rows(rows: Iterable[ManifestRow], like: Item, form: FormOptions) -> Iterator[Item]:
    as_asked = question_maker(form)
    named = cache(named_input)  # reads all files of a folder
    for row in rows:
        image = replace(named(row.image), files=())  # what a manifest names is asked about, copy or not
        yield _of_row(row, replace(like, input=image), as_asked)


def _of_row(row: ManifestRow, like: Item, as_asked: Callable[[str], Question]) -> Item:
    try:
        item = like if row.question is None else like.asking([as_asked(row.question)])
        if not row.options:
            return item
        values = parsed_options(ROW_GROUPS, dict(sorted(row.options.items())))
        opening = replace(like.opening, **_members(like.opening, values))
        looking = replace(like.looking, **_members(like.looking, values))
        check_looking(looking)
    except UsageError as error:
        raise UsageError(f"{row.where}: {error.message}", error.hint) from error
    own = shlex.join(f"{name}={text}" for name, text in sorted(row.options.items()))
    return replace(item, opening=opening, looking=looking, row_options=own)


_NOTHING = lone_input(Path())


def _members(group: OpenOptions | LookOptions, values: Mapping[str, Any]) -> dict[str, Any]:
    names = {field.name for field in fields(group)}
    return {name: value for name, value in values.items() if name in names}
