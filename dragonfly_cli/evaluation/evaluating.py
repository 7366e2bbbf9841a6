"""``eval``: asks what the rows of a data file ask, by ``batch``, and scores the answers against the rows' own.

The rows are those that ``finetune`` learns from. Every turn of a conversation is asked by itself, without those before
it. With ``--output`` the answers stay, and a run that was stopped goes on; else they are forgotten.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, cast

from dragonfly_cli.batch.items import Item, items_of_rows, joined
from dragonfly_cli.batch.ledger import Outputs
from dragonfly_cli.batch.manifest import ManifestRow
from dragonfly_cli.batch.options import BatchOptions, FileOptions, SelectOptions, StopOptions
from dragonfly_cli.batch.result import Key
from dragonfly_cli.batch.row_file import RowFile
from dragonfly_cli.batch.run import run_batch
from dragonfly_cli.datasets.data_file import read_data
from dragonfly_cli.datasets.rows import GROUP_COLUMNS, Row, Turn
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.errors import SOME_FAILED_CODE, InputError
from dragonfly_cli.evaluation.metrics import Kind, Scored, as_compared
from dragonfly_cli.evaluation.options import EvalOptions, Part
from dragonfly_cli.evaluation.report import Report, blocks_of
from dragonfly_cli.options import AnswerOptions
from dragonfly_cli.output.terminal import say
from dragonfly_cli.readers.fingerprint import fingerprint

_SCORED_CODES = (0, SOME_FAILED_CODE)


@dataclass(frozen=True)
class Asked:
    """A question of a row, with its answer, and the item by which it is asked."""

    item: Item
    turn: Turn
    group: str


def evaluate(data_file: Path, options: EvalOptions) -> tuple[int, Report | None]:
    """The exit code, and the scores if the run came to its end.

    Raises InputError for data that cannot be used, and what ``run_batch`` raises.
    """
    data = read_data(data_file)
    data.refuse_too_many_bad(options.scoring.max_errors)
    for line in data.bad_lines():
        say(f"warning: {line}")
    rows = _rows_of(options.scoring.part, data_file, data.rows)
    kept_in = options.scoring.answers
    with TemporaryDirectory(prefix="dragonfly-") as folder:
        batch = _as_batch(options, kept_in or Path(folder) / "answers.csv")
        asked = list(_asked(rows, data_file, batch))
        items = joined(each.item for each in asked)
        code = run_batch([data_file], [], batch, lambda *_: items, is_kept=kept_in is not None)
        if code not in _SCORED_CODES:
            say("note: nothing was scored" + ("" if kept_in else "; --output FILE keeps the answers, to go on with"))
            return code, None
        answers = _answers(Outputs.of(batch.files))
    scored = list(_join(asked, items, answers))
    blocks = blocks_of(scored, options.scoring.metric)
    return code, Report(blocks, len(asked) - len(scored), _about(data_file, options.answering))


def _rows_of(part: Part, data_file: Path, rows: list[Row]) -> list[Row]:
    is_told = any(row.is_held_out is not None for row in rows)
    if part is Part.all or (part is Part.auto and not is_told):
        return rows
    chosen = [row for row in rows if row.is_held_out is (part is not Part.train)]
    if not chosen:
        raise InputError(f"{data_file}: no row is {part} by its column split", "choose with --split, or take all")
    if part is Part.auto and len(chosen) < len(rows):
        say(f"note: {len(chosen)} of {len(rows)} rows are held out by the column split; only these are asked")
    return chosen


def _as_batch(options: EvalOptions, answers: Path) -> BatchOptions:
    return BatchOptions(
        FileOptions(answers),
        options.form,
        options.opening,
        options.looking,
        options.answering,
        SelectOptions(),
        StopOptions(),
        options.working,
    )


def _asked(rows: list[Row], data_file: Path, batch: BatchOptions) -> Iterator[Asked]:
    for row in rows:
        group = next((f"{name} {row.groups[name]}" for name in GROUP_COLUMNS if name in row.groups), None)
        manifest = [_as_manifest(row, turn, data_file) for turn in row.turns]
        for turn, item in zip(row.turns, items_of_rows(manifest, batch), strict=True):
            if turn.system:
                item = item.asking(replace(question, system=turn.system) for question in item.questions)
            yield Asked(item, turn, group or item.input.place)


def _as_manifest(row: Row, turn: Turn, data_file: Path) -> ManifestRow:
    picture, options = row.picture, {}
    if picture.frame is not None:
        options["frame"] = str(picture.frame)
    if box := picture.region:
        options["region"] = f"{box.x},{box.y},{box.width},{box.height}"
    return ManifestRow(picture.path, turn.question, options, f"{data_file}, row {row.number}")


def _answers(outputs: Outputs) -> dict[Key, dict[str, str]]:
    """The cells of every row that was answered."""
    file = RowFile(outputs.table, outputs.rows)
    held = file.read()
    return {key: outputs.rows.cells(row) for key, row in file.rows() if not held[key].failed}


def _join(asked: list[Asked], items: list[Item], answers: dict[Key, dict[str, str]]) -> Iterator[Scored]:
    """Every question that has an answer, with it; the table names an image as its first row does."""
    named = {(item.input.place, item.row_options): item for item in items}
    for each in asked:
        (question,) = each.item.questions
        cells = answers.get(named[each.item.input.place, each.item.row_options].key(question))
        if cells:
            yield _scored(each, cells)


def _about(data_file: Path, answering: AnswerOptions) -> dict[str, Any]:
    checkpoint = find_checkpoint(answering.model)
    return {
        "data": {"name": data_file.name, "sha256": fingerprint(data_file)["sha256"]},
        "model": {"id": checkpoint.id, "sha256": checkpoint.sha256()},
    }


def _scored(asked: Asked, cells: dict[str, str]) -> Scored:
    (question,) = asked.item.questions
    p_yes = float(cells["p_yes"]) if question.kind == "yesno" else None
    kind: Kind = "options" if question.kind == "scale" else cast("Kind", question.kind)
    if kind == "yesno" and as_compared(asked.turn.answer) not in ("yes", "no"):
        kind, p_yes = "open", None  # the form of the question was misleading: such an answer can only be wrong
    return Scored(
        kind, asked.turn.question, asked.turn.answer, cells["answer"], p_yes, cells["abstained"] == "yes", asked.group
    )
