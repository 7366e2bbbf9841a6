"""However many answer, the rows are those of one: processes, shards that are merged, machines of a Ray cluster."""

import json
import multiprocessing
import os
import select
import shutil
import signal
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from time import monotonic

import pytest
from batch_runs import QUESTIONS, TINY, bytes_of, items_named, rows_of, start, wait_for, write_study
from hypothesis import given
from hypothesis import strategies as st
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.batch.groups import Group, grouped
from dragonfly_cli.batch.handout import TRIES, Handout
from dragonfly_cli.batch.items import Item
from dragonfly_cli.batch.job import Job
from dragonfly_cli.batch.processes import own_device
from dragonfly_cli.batch.worker import Worker
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.questions import as_question
from dragonfly_cli.options import AnswerOptions, LookOptions, OpenOptions
from dragonfly_cli.readers.inputs import named_input


@pytest.fixture(scope="module")
def study(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_study(tmp_path_factory.mktemp("data") / "study", images=12)


@pytest.fixture(scope="module")
def alone(study: Path) -> Path:
    """The table of one worker in one process, with records and evidence beside it."""
    table = study.parent / "alone" / "answers.csv"
    table.parent.mkdir()
    assert dragonfly("batch", study, *QUESTIONS, *outputs(table)).code == 8
    return table


def outputs(table: Path) -> tuple[str | Path, ...]:
    records, evidence = table.with_suffix(".jsonl"), table.with_name("evidence")
    return "-o", table, "--records", records, "--evidence", evidence


def written(table: Path) -> dict[str, bytes]:
    """Table, records, failures and evidence of a run, without how long things took."""
    files = (table, table.with_suffix(".jsonl"), table.with_name("failed.csv"), *table.with_name("evidence").iterdir())
    return {file.name: bytes_of(file) for file in files}


def when_rows_appear(table: Path, act: Callable[[], None]) -> threading.Thread:
    """Calls ``act`` as soon as the table has its first row."""

    def watch() -> None:
        while not (table.exists() and table.read_bytes().count(b"\n") > 1):
            threading.Event().wait(0.02)
        act()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    return thread


@pytest.mark.slow
def test_two_processes_of_which_one_is_killed_write_the_rows_of_one(study: Path, alone: Path, tmp_path: Path) -> None:
    table = tmp_path / "answers.csv"
    killed: list[int | None] = []

    def kill_one() -> None:
        killed.append(multiprocessing.active_children()[0].pid)
        os.kill(killed[0] or 0, signal.SIGKILL)

    watching = when_rows_appear(table, kill_one)
    outcome = dragonfly("batch", study, *QUESTIONS, *outputs(table), "--workers", "2")
    watching.join()
    assert outcome.code == 8
    assert len(killed) == 1
    assert written(table) == written(alone)
    assert not multiprocessing.active_children()


# What every process of the run begins with, as in a container whose disk cannot be written to.
NO_TEMPORARY_FOLDER = "import tempfile; tempfile._candidate_tempdir_list = list"


@pytest.mark.slow
def test_an_interrupt_lets_every_process_finish_its_image_and_leaves_none_behind(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ctrl-C in a terminal reaches the workers as well. They need no folder for temporary files."""
    (tmp_path / "sitecustomize.py").write_text(NO_TEMPORARY_FOLDER)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path), prepend=os.pathsep)
    table = tmp_path / "answers.csv"
    asked = ("-q", "What is it?", "-m", TINY, "--max-tokens", "300")
    run = start("batch", study, *asked, "-o", table, "--workers", "2")
    when_rows_appear(table, lambda: os.killpg(run.pid, signal.SIGINT)).join()
    _, told = run.communicate(timeout=120)  # until the last process has let go of stderr
    assert run.returncode == 130
    assert "ending after the image in hand" in told and "Traceback" not in told
    assert 0 < len(rows_of(table)) < 14  # one, where the other process had not begun


def test_each_process_has_a_gpu_of_its_own_unless_one_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    def devices(wish: str) -> list[str]:
        job = Job(find_checkpoint(str(TINY)), [], AnswerOptions(device=wish))
        return [own_device(job, number) for number in range(3)]

    monkeypatch.setattr("torch.cuda.device_count", lambda: 2)
    assert devices("auto") == ["auto"] * 3  # PyTorch counts them and cannot use them, as with a driver that is too old
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert devices("auto") == devices("cuda") == ["cuda:0", "cuda:1", "cuda:0"]
    assert devices("cuda:1") == ["cuda:1"] * 3
    assert devices("cpu") == ["cpu"] * 3
    monkeypatch.setattr("torch.cuda.device_count", lambda: 0)
    assert devices("auto") == ["auto"] * 3
    assert devices("cuda") == ["cuda"] * 3  # which is refused there, and not answered on a CPU


@pytest.mark.slow
def test_what_keeps_workers_from_beginning_is_told_and_nothing_is_left(study: Path, tmp_path: Path) -> None:
    (tmp_path / "model").mkdir()
    call = ("batch", study, *QUESTIONS, "-o", tmp_path / "a.csv", "-m", tmp_path / "model")
    for workers in ("1", "2"):
        expect_error(dragonfly(*call, "--workers", workers), 5, "model")
        assert not (tmp_path / "a.csv").exists()
        assert not (tmp_path / "run.json").exists()


@pytest.fixture(scope="module")
def shards(study: Path) -> list[Path]:
    """The tables of three parts of a run, with the evidence of all in one folder."""
    tables = [study.parent / "shards" / f"part{number}.csv" for number in (1, 2, 3)]
    tables[0].parent.mkdir()
    for number, table in enumerate(tables, start=1):
        dragonfly("batch", study, *QUESTIONS, *outputs(table), "--shard", f"{number}/3")
    return tables


@pytest.mark.slow
def test_merged_shards_are_the_table_of_one_run(study: Path, alone: Path, shards: list[Path], tmp_path: Path) -> None:
    images = [row["image"] for table in shards for row in rows_of(table)]
    assert Counter(images) == Counter(row["image"] for row in rows_of(alone))
    whole, evidence = tmp_path / "answers.csv", shards[0].with_name("evidence")
    failures = shards[0].with_name("part2.failed.csv")  # as the shell gives it for part*.csv
    assert failures.exists()
    parts = (shards[2], failures, shards[0], shards[1])
    merging = ("merge", *parts, "-o", whole, "--records", whole.with_suffix(".jsonl"))
    assert dragonfly(*merging).code == 8
    shutil.copytree(evidence, tmp_path / "evidence")
    assert written(whole) == written(alone)
    continued = dragonfly("batch", study, *QUESTIONS, *outputs(whole)[:4], "--evidence", evidence)
    assert continued.code == 8
    assert "14 of 14 images are done" in continued.stderr


@pytest.mark.slow
def test_shards_may_be_parquet(study: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    parts = [tmp_path / f"part{number}.parquet" for number in (1, 2)]
    for number, part in enumerate(parts, start=1):
        dragonfly("batch", study, "-q", "Is it?", "-m", TINY, "-o", part, "--limit", "3", "--shard", f"{number}/2")
    assert dragonfly("merge", *parts, "-o", tmp_path / "whole.parquet").code == 8
    rows = parquet.read_table(tmp_path / "whole.parquet").to_pylist()
    assert [Path(row["image"]).name for row in rows] == ["000.png", "001-broken.svs", "001.png"]
    (tmp_path / "part2.csv").unlink()
    expect_error(dragonfly("merge", *parts, "-o", tmp_path / "x.parquet"), 3, "part2.csv")


@pytest.mark.slow
def test_a_merge_that_was_killed_is_begun_again(alone: Path, shards: list[Path], tmp_path: Path) -> None:
    whole, records = tmp_path / "answers.csv", tmp_path / "answers.jsonl"
    merging = ("merge", *shards, "-o", whole, "--records", records)
    assert dragonfly(*merging).code == 8
    settings = json.loads((tmp_path / "run.json").read_text())
    for gone in ([], [tmp_path / "failed.csv"], [whole, tmp_path / "failed.csv"]):
        for file in gone:
            file.unlink()
        records.write_bytes(b"")
        (tmp_path / "run.json").write_text(json.dumps(settings | {"finished": False}))
        assert dragonfly(*merging).code == 8
        for file in (whole, records, tmp_path / "failed.csv"):
            assert bytes_of(file) == bytes_of(alone.with_name(file.name))
    expect_error(dragonfly(*merging), 7, "answers.csv", "already")


def test_the_only_shard_of_a_run_can_be_merged(study: Path, tmp_path: Path) -> None:
    """A job array may have one task."""
    part, whole = tmp_path / "part1.csv", tmp_path / "whole.csv"
    call = ("batch", study, "-q", "Is it?", "-m", TINY, "--limit", "3")
    assert dragonfly(*call, "-o", part, "--shard", "1/1").code == 8
    assert dragonfly("merge", part, "-o", whole).code == 8
    assert rows_of(whole) == rows_of(part)
    assert "3 of 3 images are done" in dragonfly(*call, "-o", whole).stderr


def test_the_time_of_an_image_begins_with_its_turn(monkeypatch: pytest.MonkeyPatch) -> None:
    """It was read ahead, and its turn comes an hour later."""
    slide = Path(__file__).parents[1] / "examples" / "slide.svs"
    looking = LookOptions(region=["0,0,200,200", "200,0,200,200", "0,200,200,200"], time_limit=1800)
    item = Item(named_input(slide), (as_question("Is it?"),), OpenOptions(), looking)
    worker = Worker(Job(find_checkpoint(str(TINY)), [*item.questions], AnswerOptions()))
    reading = worker.read_now(item)
    for module in ("pipeline", "fields.field", "fields.search"):
        monkeypatch.setattr(f"dragonfly_cli.{module}.monotonic", lambda: monotonic() + 3600)
    (asked,) = worker.ask(Group((item,)), [reading])
    (result,) = worker.finish(asked)
    assert result.record is not None
    assert len(result.record["fields"]) == 3


WAITS = """
import multiprocessing, threading
from dragonfly_cli.batch.processes import end_with_parent

def wait():
    end_with_parent()
    print(multiprocessing.current_process().pid, flush=True)
    threading.Event().wait()

if __name__ == "__main__":
    multiprocessing.get_context("spawn").Process(target=wait).start()
"""


def test_a_worker_ends_with_the_run_that_was_killed(tmp_path: Path) -> None:
    (tmp_path / "waits.py").write_text(WAITS)
    run = subprocess.Popen([sys.executable, tmp_path / "waits.py"], stdout=subprocess.PIPE, text=True)
    assert run.stdout is not None
    worker = os.pidfd_open(int(run.stdout.readline()))
    run.kill()
    run.wait()
    ended, _, _ = select.select([worker], [], [], 60)
    if not ended:
        signal.pidfd_send_signal(worker, signal.SIGKILL)
    assert ended


@pytest.mark.slow
def test_what_cannot_be_merged_is_told_and_nothing_is_written(
    study: Path, alone: Path, shards: list[Path], tmp_path: Path
) -> None:
    first, second, third = shards
    whole, output = tmp_path / "answers.csv", ("-o", tmp_path / "x.csv")
    assert dragonfly("merge", *shards, "-o", whole).code == 8
    expect_error(dragonfly("merge", *shards, "-o", whole), 7, "answers.csv", "already")
    expect_error(dragonfly("merge", first, second, *output), 2, "1/3, 2/3")
    expect_error(dragonfly("merge", *shards, first, *output), 2, "1/3, 1/3")
    expect_error(dragonfly("merge", first, second, alone, *output), 4, "answers.csv")
    expect_error(dragonfly("merge", *shards, "-o", tmp_path / "x.jsonl"), 2, "x.jsonl")
    other = tmp_path / "other.csv"
    dragonfly("batch", study, "-q", "Another?", "-m", TINY, "-o", other, "--shard", "3/3")
    expect_error(dragonfly("merge", first, second, other, *output), 4, "other.csv")
    part = tmp_path / "part.csv"
    call = ("batch", study, *QUESTIONS, "-o", part, "--evidence", first.with_name("evidence"), "--shard", "2/3")
    dragonfly(*call, "--fail-fast")
    expect_error(dragonfly("merge", first, part, third, *output), 4, "part.csv", "not finished")
    dragonfly(*call)
    with_records = (*output, "--records", tmp_path / "x.jsonl")
    expect_error(dragonfly("merge", first, part, third, *with_records), 2, "part.csv", "--records")
    for suffix in (".csv", ".run.json"):
        shutil.copy(second.with_suffix(suffix), tmp_path)
    copied = tmp_path / second.name
    expect_error(dragonfly("merge", first, copied, third, *with_records), 3, "part2.jsonl")
    lines = second.with_suffix(".jsonl").read_bytes().splitlines(keepends=True)
    copied.with_suffix(".jsonl").write_bytes(b"".join(lines[:-1]))
    expect_error(dragonfly("merge", first, copied, third, *with_records), 4, "part2.jsonl", "other rows")
    rows = second.read_bytes().splitlines(keepends=True)
    for cut in (b"".join(rows)[:-20], b"".join(rows[:-1]), rows[0], b""):  # copied before it was whole
        copied.write_bytes(cut)
        expect_error(dragonfly("merge", first, copied, third, *output), 4, "part2.csv")
    copied.write_bytes(b"".join(rows) + b"of something else\n")
    expect_error(dragonfly("merge", first, copied, third, *output), 4, "part2.csv", "not a table")
    assert not list(tmp_path.glob("x.*"))


def test_a_shard_of_other_images_is_not_continued(study: Path, tmp_path: Path) -> None:
    shutil.copytree(study, tmp_path / "study")
    call = ("batch", tmp_path / "study", *QUESTIONS, "-o", tmp_path / "a.csv", "--shard", "1/9")
    assert dragonfly(*call).code == 0
    shutil.copy(study / "000.png", tmp_path / "study" / "0000.png")  # every image behind it moves to another shard
    expect_error(dragonfly(*call), 7, "a.csv", "images")


@pytest.mark.slow
def test_a_ray_cluster_that_loses_a_machine_writes_the_rows_of_one(
    study: Path, alone: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_USAGE_STATS_ENABLED", "0")
    pytest.importorskip("ray")
    from ray.cluster_utils import Cluster

    soon = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 500, "health_check_failure_threshold": 3}
    head = {"num_cpus": 1, "num_gpus": 0, "include_dashboard": False, "_system_config": soon}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    table = tmp_path / "answers.csv"
    try:
        machines = [cluster.add_node(num_cpus=1, num_gpus=1) for _ in range(2)]
        losing = when_rows_appear(table, lambda: cluster.remove_node(machines[0], allow_graceful=False))
        call = ("batch", study, *QUESTIONS, *outputs(table), "--engine", "ray", "--address", cluster.address)
        outcome = dragonfly(*call)
        losing.join()
    finally:
        cluster.shutdown()
    assert outcome.code == 8, outcome.stderr
    assert written(table) == written(alone)


@pytest.mark.slow
def test_a_run_on_ray_that_is_terminated_says_so_and_keeps_its_rows(study: Path, tmp_path: Path) -> None:
    """Ray takes the signal for itself when it begins, and has other exit codes while it waits for a long answer."""
    pytest.importorskip("ray")
    table = tmp_path / "answers.csv"
    asked = ("-q", "What is it?", "-m", TINY, "--max-tokens", "300")
    call = ("batch", study, *asked, "-o", table, "--engine", "ray", "--together", "2")
    beginning = start(*call)
    wait_for(beginning, "note: research use only")
    beginning.terminate()
    assert beginning.wait() == 143
    assert not table.exists()
    answering = start(*call)
    when_rows_appear(table, answering.terminate).join()
    assert answering.wait() == 143
    assert 0 < len(rows_of(table)) < 14


@given(st.data(), st.integers(0, 8), st.integers(1, 3), st.integers(1, 3), st.integers(1, 4))
def test_every_item_is_done_once_or_given_up(
    data: st.DataObject, count: int, together: int, workers: int, depth: int
) -> None:
    items = items_named(count)
    poison = data.draw(st.sets(st.sampled_from([item.image for item in items]))) if items else set()
    handout = Handout(grouped(items, together), depth)
    has: dict[int, list[Group]] = {worker: [] for worker in range(workers)}
    done: list[Item] = []
    given_up: list[Item] = []
    beginning: set[int] = set()  # workers that were lost, and are not ready again
    suspects: set[Item] = set()  # that were with a worker when it was lost
    while True:
        for worker, group in handout.deal(set(has) - beginning):
            has[worker].append(group)
        for groups in has.values():
            assert len(groups) <= 1 or suspects.isdisjoint(item for group in groups for item in group.items)
        if not handout.outstanding and not handout.waits_for_a_worker:
            break
        assert max(map(len, has.values())) <= depth
        if beginning and (not handout.outstanding or data.draw(st.booleans())):
            beginning.remove(data.draw(st.sampled_from(sorted(beginning))))
            continue
        worker = data.draw(st.sampled_from([each for each, mine in has.items() if mine]))
        first = has[worker].pop(0)
        if poison.isdisjoint(item.image for item in first.items):
            handout.done(worker, first.place)
            done += first.items
            suspects -= {*first.items}
        else:
            suspects |= {item for group in (first, *has[worker]) for item in group.items}
            given_up += handout.lost(worker)
            has[worker] = []
            beginning.add(worker)
    assert not handout.waits_for_a_worker
    assert Counter(item.image for item in done + given_up) == Counter(item.image for item in items)
    assert {item.image for item in given_up} == poison  # those who were only beside one are not given up
    assert TRIES > 1
