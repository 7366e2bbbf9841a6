"""``eval``: asks what the rows of a data file ask, by ``batch``, and scores the answers against the rows' own.

The rows are those that ``finetune`` learns from. Every turn of a conversation is asked by itself, without those before
it. With ``--output`` the answers stay: the next run asks only what is not answered, be it new or failed. Else they are
forgotten.
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from dragonfly_cli.asking import question_maker
from dragonfly_cli.batch.ledger import Outputs
from dragonfly_cli.batch.options import BatchOptions, FileOptions, SelectOptions, StopOptions
from dragonfly_cli.batch.result import Key
from dragonfly_cli.batch.row_file import RowFile, foreign
from dragonfly_cli.batch.row_formats import NotAsWrittenError
from dragonfly_cli.batch.run import run_batch
from dragonfly_cli.datasets.data_file import Data, read_data
from dragonfly_cli.datasets.rows import Row
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.errors import SOME_FAILED_CODE, InputError, OutputError, UsageError
from dragonfly_cli.evaluation.asked import Asked, asked_of, items_of, scored_of
from dragonfly_cli.evaluation.metrics import metrics_of
from dragonfly_cli.evaluation.options import EvalOptions, Metric, SplitChoice
from dragonfly_cli.evaluation.report import KIND_NAMES, Report, blocks_of
from dragonfly_cli.fields import check_looking
from dragonfly_cli.output.record import storable_settings, versions_used
from dragonfly_cli.output.terminal import say
from dragonfly_cli.readers.fingerprint import fingerprint

_SCORED_CODES = (0, SOME_FAILED_CODE)


def evaluate(data_file: Path, options: EvalOptions) -> tuple[int, Report | None]:
    """The exit code, and the scores if the run came to its end.

    Raises InputError for data that cannot be used, UsageError for a metric that none of its questions has, and what
    ``run_batch`` raises.
    """
    scoring = options.scoring
    with _table(scoring.answers) as table:
        batch = _as_batch(options, table)
        question_maker(batch.form)  # what is wrong with options is told before any file is opened
        check_looking(batch.looking)
        outputs = Outputs.of(batch.files)
        data = _usable(data_file, scoring.max_errors)
        about = _about(data, options)  # of what was read, whatever becomes of the file meanwhile
        asked = asked_of(_rows_of(scoring.split, data), data_file, batch)
        _check(asked, data_file, scoring.metric or [])
        items = items_of(asked)
        code = run_batch([data_file], [], batch, items, is_kept=scoring.answers is not None, is_calibrated=False)
        if code not in _SCORED_CODES:
            how = "the same command goes on" if scoring.answers else "--output FILE keeps the answers, to go on with"
            say(f"note: nothing was scored; {how}")
            return code, None
        try:
            scored = list(scored_of(asked, items, _answers(outputs)))
        except NotAsWrittenError as error:
            raise foreign(outputs.table, error) from None
    return code, Report(blocks_of(scored, scoring.metric), len(asked) - len(scored), about)


@contextmanager
def _table(kept_in: Path | None) -> Iterator[Path]:
    if kept_in:
        yield kept_in
    else:
        with _temporary_folder() as folder:
            yield Path(folder) / "answers.csv"


def _temporary_folder() -> TemporaryDirectory[str]:
    try:
        return TemporaryDirectory(prefix="dragonfly-")
    except FileNotFoundError as error:
        raise OutputError(
            "no folder for temporary files can be written to", "set TMPDIR to one, or keep the answers with --output"
        ) from error


def _usable(data_file: Path, max_errors: int) -> Data:
    data = read_data(data_file)
    data.refuse_too_many_bad(max_errors)
    if unused := data.unused_line():
        say(f"note: {unused}")
    for line in data.bad_lines():
        say(f"warning: {line}")
    return data


def _about(data: Data, options: EvalOptions) -> dict[str, Any]:
    checkpoint = find_checkpoint(options.answering.model)
    groups = (options.form, options.opening, options.looking, options.answering)
    settings = {name: value for group in groups for name, value in asdict(group).items()}
    return {
        "data": {"name": data.path.name, **fingerprint(data.path), "left_out": len(data.bad)},
        "split": options.scoring.split,
        "model": {"id": checkpoint.id, "sha256": checkpoint.sha256()},
        "settings": storable_settings(settings),
        "versions": versions_used(),
    }


def _rows_of(split: SplitChoice, data: Data) -> list[Row]:
    is_told = any(row.is_held_out is not None for row in data.rows)
    if split is SplitChoice.all or (split is SplitChoice.auto and not is_told):
        return data.rows
    chosen = [row for row in data.rows if row.is_held_out is (split is not SplitChoice.train)]
    if not chosen:
        name = SplitChoice.train if split is SplitChoice.train else SplitChoice.held_out
        raise InputError(f"{data.path}: no row is {name} by its column split", "--split all takes every row")
    if split is SplitChoice.auto and len(chosen) < len(data.rows):
        counts = f"{len(chosen)} of {len(data.rows)} rows"
        say(f"note: {counts} are held out by the column split; only these are asked")
    return chosen


def _as_batch(options: EvalOptions, table: Path) -> BatchOptions:
    return BatchOptions(
        FileOptions(table),
        options.form,
        options.opening,
        options.looking,
        options.answering,
        SelectOptions(),
        StopOptions(retry_failed=True),
        options.working,
    )


def _check(asked: list[Asked], data_file: Path, wanted: Sequence[Metric]) -> None:
    kinds = {each.kind for each in asked}
    for metric in wanted:
        if not any(metric in metrics_of(kind) for kind in kinds):
            its = " and ".join(name for kind, name in KIND_NAMES.items() if kind in kinds)
            raise UsageError(
                f"--metric {metric}: {data_file} has {its} alone, which have no {metric}",
                f"choose among: {', '.join(dict.fromkeys(m for kind in kinds for m in metrics_of(kind)))}",
            )
    if free := sum(each.is_free_after_all for each in asked):
        questions, their = ("yes/no question is", "its") if free == 1 else ("yes/no questions are", "their")
        say(f"warning: {free} {questions} asked freely, as {their} known answer is neither yes nor no")
    if vain := sum(not each.is_answerable for each in asked):
        are = "is" if vain == 1 else "are"
        say(
            f"warning: {vain} of the known answers {are} none of those to choose from, so that no answer is right there"
        )


def _answers(outputs: Outputs) -> dict[Key, dict[str, str]]:
    """The cells of every row that was answered."""
    file = RowFile(outputs.table, outputs.rows)
    held = file.read()
    return {key: outputs.rows.cells(row) for key, row in file.rows() if not held[key].failed}
