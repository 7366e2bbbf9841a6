"""The loop of a folder run: what is left of the items goes to workers, what comes back goes into the ledger.

One bad file is one failed row per question. Every result passes through ``_Loop.take``, with its full record.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from pathlib import Path

from dragonfly_cli.batch.evidence import (
    check_evidence_folder,
    make_evidence_folder,
    remove_unfinished,
    without_evidence,
)
from dragonfly_cli.batch.groups import grouped
from dragonfly_cli.batch.interrupt import FirstInterrupt
from dragonfly_cli.batch.items import Item, Shard, find_items, read_shard, select, shard_of, with_controls
from dragonfly_cli.batch.job import Job, check_work_options, workforce
from dragonfly_cli.batch.ledger import Ledger, Outputs
from dragonfly_cli.batch.options import BatchOptions, StopOptions
from dragonfly_cli.batch.progress import Progress
from dragonfly_cli.batch.result import Key, Result, control_summary
from dragonfly_cli.batch.settings import (
    calibration_settings,
    deciding_settings,
    hash_of,
    numbering_settings,
    outline_settings,
    selecting_settings,
    sharing_settings,
)
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.questions import Question, check_rule
from dragonfly_cli.errors import INTERRUPTED_CODE, SOME_FAILED_CODE, StoppedError, UsageError
from dragonfly_cli.fields import check_looking
from dragonfly_cli.output.terminal import say, say_notices


def run_batch(
    sources: list[Path],
    questions: list[Question],
    options: BatchOptions,
    found: list[Item] | None = None,
    is_kept: bool = True,
    is_calibrated: bool = True,
) -> int:
    """Answers every question about every image below ``sources``; returns the exit code.

    Continues the run that the output holds, if it was made with the same settings. Items that the caller
    has ``found`` stand for those of the sources; a table that is not to be kept is not named. Where nobody reads the
    calibrated probabilities, rows before and after a calibration may stand in one table.

    Raises:
        UsageError: options contradict each other, or a question does not fit the model.
        NoInputError: there is no image.
        OutputError: the table cannot be written, belongs to another run, or is being written by one.
        StoppedError: so many images failed that the run was to be stopped.
    """
    outputs, shard = _checked(options)
    every = _of_all_shards(find_items(sources, questions, options) if found is None else found, sources, options)
    items = shard_of(every, shard)
    checkpoint = find_checkpoint(options.answering.model)
    deciding = deciding_settings(questions, options, checkpoint)
    settings = selecting_settings(sources, questions, options) | deciding
    settings |= numbering_settings(every) | outline_settings(every)
    is_shard = options.selecting.shard is not None  # 1/1 too, as a job array may have one task
    if is_shard:
        settings |= sharing_settings(shard, every)
    if is_calibrated:
        settings |= calibration_settings(every, checkpoint)
    ledger = Ledger(outputs, settings, is_shard=is_shard)
    ledger.refuse_other_run()
    check_rule(_asked(items), options.answering.aggregate)
    evidence = options.files.evidence and options.files.evidence.absolute()
    job = Job(checkpoint, questions, options.answering, evidence, hash_of(deciding), options.working.together)
    if options.stopping.dry_run:
        from dragonfly_cli.batch.plan import show_plan

        show_plan(items, ledger, job)
        return 0
    with ledger.lock():
        ledger.refuse_other_run()  # once more, as another may have been here a moment ago
        return _run(items, ledger, job, options, kept_in=options.files.output if is_kept else None)


def _checked(options: BatchOptions) -> tuple[Outputs, Shard]:
    """What is written, and which part of the run it is; raises UsageError or OutputError, before anything is opened."""
    outputs = Outputs.of(options.files)
    outputs.check()
    check_work_options(options.working)
    check_looking(options.looking)
    shard = read_shard(options.selecting.shard)
    if options.opening.series is not None:
        raise UsageError("--series chooses one series of one image, and here are many", "leave it out")
    return outputs, shard


def _of_all_shards(found: list[Item], sources: list[Path], options: BatchOptions) -> list[Item]:
    """Those that are asked about; raises OutputError or UsageError where their evidence cannot be drawn."""
    if options.files.evidence:
        check_evidence_folder(options.files.evidence, sources, found)
    return with_controls(select(found, options.selecting, options.answering.seed), options.selecting.control_sample)


def _run(items: list[Item], ledger: Ledger, job: Job, options: BatchOptions, kept_in: Path | None) -> int:
    done = _done_before(items, ledger, job, retry=options.stopping.retry_failed)
    left = [group for group in grouped(items, job.together) if not done.issuperset(group.keys)]
    say_notices(job.checkpoint)
    loop = _Loop(ledger, done, options.stopping)
    try:
        with FirstInterrupt("group" if job.together > 1 else "image") as stop:
            if left:
                with workforce(job, options.working, lambda: stop.asked) as workers:
                    if job.evidence:
                        make_evidence_folder(job.evidence)
                    ledger.open()  # not before the model is there, so that an error leaves nothing behind
                    loop.take(workers.answers(left), sum(len(group.items) for group in left))
            numbers = {key: number for number, key in enumerate(key for item in items for key in item.keys)}
            failed = ledger.finish(numbers)
    finally:
        ledger.close()
        if job.evidence:
            remove_unfinished(job.evidence, items, job.settings)
    held = ledger.open()
    for shortcoming, count in loop.shortcomings.items():
        say(f"warning: {shortcoming} (answers of this call: {count})")
    _say_counts(items, held, failed, kept_in)
    if told := control_summary(held[key] for item in items for key in item.keys if key in held):
        say(f"note: {told}")
    if stop.asked:
        return INTERRUPTED_CODE
    if loop.gave_up:
        raise StoppedError(
            f"stopped after {loop.failed_images} of the images had failed",
            "the same command goes on with the next image; --retry-failed asks about them again",
        )
    return SOME_FAILED_CODE if failed else 0


def _done_before(items: list[Item], ledger: Ledger, job: Job, *, retry: bool) -> frozenset[Key]:
    """What an earlier run has done, which is told; with ``retry`` what has failed is still to be done."""
    if not ledger.exists:
        return frozenset()
    held = ledger.open()
    done = frozenset(key for key, result in held.items() if not (retry and result.failed))
    finished = sum(done.issuperset(item.keys) for item in items)
    say(f"note: continuing {ledger.path}: {finished} of {len(items)} images are done")
    if job.evidence and (bare := without_evidence(job.evidence, _answered(items, held), job.settings)):
        what = f"images that are done, but have no files in {job.evidence}: {len(bare)}"
        say(f"warning: {what}; another --output asks about them again")
    return done


def _answered(items: list[Item], held: Mapping[Key, Result]) -> list[Item]:
    """Those that have an answer to a question at least."""
    return [item for item in items if any(key in held and not held[key].failed for key in item.keys)]


def _say_counts(items: list[Item], held: Mapping[Key, Result], failed: int, kept_in: Path | None) -> None:
    keys = [item.keys for item in items]
    finished = sum(held.keys() >= set(each) for each in keys)
    images = f"{len(items)}" if finished == len(items) else f"{finished} of {len(items)}"
    questions = len({question.text for item in items for question in item.questions})
    where = f"; answers are in {kept_in}" if kept_in else ""
    say(f"note: images: {images}, questions: {questions}, failed rows: {failed}{where}")
    if others := len(held.keys() - set().union(*keys)):
        say(f"note: rows kept about images or questions that are no longer asked about: {others}")


class _Loop:
    """Takes results from workers into the ledger until there are no more, or too many have failed."""

    def __init__(self, ledger: Ledger, done: frozenset[Key], options: StopOptions) -> None:
        self._ledger = ledger
        self._done = done
        self._most_failures = 1 if options.fail_fast else options.max_errors
        self.failed_images = 0
        self.shortcomings: Counter[str] = Counter()
        self.gave_up = False

    def take(self, answers: Iterable[list[Result]], images: int) -> None:
        with Progress(images) as progress:
            for results in answers:
                new = [result for result in results if result.key not in self._done]
                self._ledger.add(new)
                self.shortcomings.update(told for result in new for told in result.shortcomings)
                failures = [result.error for result in new if result.failed]
                for why in dict.fromkeys(failures):
                    say(f"error: {why}")
                for warning in dict.fromkeys(warning for result in new for warning in result.losses):
                    say(f"warning: {warning}")
                progress.advance(failed=bool(failures))
                self.failed_images += bool(failures)
                if self._most_failures and self.failed_images >= self._most_failures:
                    self.gave_up = True
                    return


def _asked(items: list[Item]) -> list[Question]:
    """Every question of the run, once."""
    return list(dict.fromkeys(question for item in items for question in item.questions))
