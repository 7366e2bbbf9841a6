"""What the rows of a data file ask, as items of a batch, and which of the batch's answers is whose."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

from dragonfly_cli.batch.items import Item, items_of_rows, joined
from dragonfly_cli.batch.manifest import ManifestRow
from dragonfly_cli.batch.options import BatchOptions
from dragonfly_cli.batch.result import Key
from dragonfly_cli.batch.row_formats import NotAsWrittenError
from dragonfly_cli.datasets.groups import connected
from dragonfly_cli.datasets.identity import identified
from dragonfly_cli.datasets.rows import Row, Turn
from dragonfly_cli.engine.questions import WORDS_OF_YES_NO, Question
from dragonfly_cli.errors import UsageError
from dragonfly_cli.evaluation.metrics import Kind, Scored, as_compared
from dragonfly_cli.option_values import AnswerType
from dragonfly_cli.options import LookOptions

_HASH_DIGITS = 16
_FREE = "type=open"


@dataclass(frozen=True)
class Asked:
    """A question of a row with its known answer, and an item that asks nothing else."""

    item: Item
    turn: Turn
    group: int  # the same for rows that belong together

    @property
    def question(self) -> Question:
        return self.item.questions[0]

    @property
    def reference(self) -> str:
        """The known answer; of a question for yes or no, which of them it means."""
        if self.question.kind != "yesno":
            return self.turn.answer
        return WORDS_OF_YES_NO.get(as_compared(self.turn.answer), self.turn.answer)

    @property
    def is_free_after_all(self) -> bool:
        """Whether it is asked freely only since its known answer is neither yes nor no."""
        return _FREE in self.item.row_options.split()

    @property
    def is_answerable(self) -> bool:
        """Whether the known answer is among those to choose from."""
        options = self.question.options
        return not options or as_compared(self.reference) in map(as_compared, options)

    @property
    def kind(self) -> Kind:
        if not self.question.options:
            return "open"
        return "yesno" if self.question.kind == "yesno" and self.is_answerable else "options"

    def scored(self, cells: Mapping[str, str]) -> Scored:
        """With the cells of a table's row; raises NotAsWrittenError where its probability is missing."""
        if self.kind == "yesno" and not cells["p_yes"]:
            raise NotAsWrittenError("p_yes is empty in one of its rows")
        p_yes = float(cells["p_yes"]) if self.kind == "yesno" else None
        is_unsure = cells["abstained"] == "yes"
        return Scored(self.kind, self.turn.question, self.reference, cells["answer"], p_yes, is_unsure, self.group)


def asked_of(rows: list[Row], data_file: Path, batch: BatchOptions) -> list[Asked]:
    """Every turn of every row, by itself; raises UsageError for a frame or region that the options contradict."""
    _refuse_another_place(rows, data_file, batch.looking)
    told_apart, _ = identified(rows)  # what cannot be read is told when it is asked about
    groups = {row.number: group for group, some in enumerate(connected(told_apart)) for row in some}
    turns = [(row, turn) for row in rows for turn in row.turns]
    items = items_of_rows((_as_manifest(row, turn, data_file) for row, turn in turns), batch)
    return [
        Asked(_in_its_form(item, turn, batch.form.type), turn, groups[row.number])
        for (row, turn), item in zip(turns, items, strict=True)
    ]


def items_of(asked: list[Asked]) -> list[Item]:
    """Each image once, with all that is asked about it."""
    return joined(each.item for each in asked)


def scored_of(asked: list[Asked], items: list[Item], answers: Mapping[Key, Mapping[str, str]]) -> Iterator[Scored]:
    """Every question that has an answer, with it; the table names an image as the first row about it does."""
    named = {_place(item): item for item in items}
    for each in asked:
        cells = answers.get(named[_place(each.item)].key(each.question))
        if cells:
            yield each.scored(cells)


def _place(item: Item) -> tuple[str, str]:
    return item.input.place, item.row_options


def _refuse_another_place(rows: list[Row], data_file: Path, looking: LookOptions) -> None:
    places = {"--region": looking.region, "--center": looking.center, "--roi": looking.roi}
    for row in rows:
        own = row.picture
        others = [option for option, place in places.items() if own.region and place]
        if None not in (own.frame, looking.frame) and own.frame != looking.frame:
            others.append("--frame")
        if others:
            raise UsageError(
                f"{data_file}, row {row.number}: it says itself where to look, and {others[0]} says otherwise",
                f"leave {others[0]} out, or such rows",
            )


def _as_manifest(row: Row, turn: Turn, data_file: Path) -> ManifestRow:
    picture, options = row.picture, {}
    if picture.frame is not None:
        options["frame"] = str(picture.frame)
    if box := picture.region:
        options["region"] = f"{box.x},{box.y},{box.width},{box.height}"
    return ManifestRow(picture.path, turn.question, options, f"{data_file}, row {row.number}")


def _in_its_form(item: Item, turn: Turn, wanted: AnswerType) -> Item:
    """With the row's system prompt, and asked freely if it sounds like yes or no, and the known answer is neither.

    This goes into the row's options, since answers are kept by these: asked otherwise, it is another question.
    """
    question, own = item.questions[0], [item.row_options] if item.row_options else []
    if turn.system:
        question = replace(question, system=turn.system)
        own.append(f"system={sha256(turn.system.encode()).hexdigest()[:_HASH_DIGITS]}")
    if question.kind == "yesno" and wanted is AnswerType.auto and as_compared(turn.answer) not in WORDS_OF_YES_NO:
        question = replace(question, kind="open", options=())
        own.append(_FREE)
    return replace(item, questions=(question,), row_options=" ".join(own))
