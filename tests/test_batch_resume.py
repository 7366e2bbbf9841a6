"""Nothing is lost: killed, interrupted, refused by the disk, a run ends with the rows of one left alone."""

import csv
import io
import json
import os
import shutil
import signal
import socket
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import pytest
from batch_runs import (
    QUESTIONS,
    TINY,
    bytes_of,
    files_limited_to,
    may_not_write_everywhere,
    rows_of,
    start,
    wait_for,
    write_study,
)
from make_files import write_png, write_svs
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.batch.run_lock import RunLock


@dataclass(frozen=True)
class Undisturbed:
    """A finished run, with records beside its table."""

    study: Path
    table: Path

    @property
    def records(self) -> Path:
        return self.table.with_suffix(".jsonl")

    def again(self, table: Path, *more: str):
        return dragonfly(*self.call(table), *more)

    def call(self, table: Path) -> tuple[str | Path, ...]:
        return ("batch", self.study, *QUESTIONS, "-o", table, "--records", table.with_suffix(".jsonl"))

    def equals(self, table: Path) -> bool:
        """Byte for byte, but for the seconds, in table, records and list of failures."""
        names = ("answers.csv", "answers.jsonl", "failed.csv")
        return all(bytes_of(self.table.with_name(name)) == bytes_of(table.with_name(name)) for name in names)


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Undisturbed:
    folder = tmp_path_factory.mktemp("undisturbed")
    run = Undisturbed(write_study(folder / "study"), folder / "answers.csv")
    outcome = run.again(run.table)
    assert outcome.code == 8, outcome.stderr
    assert len(rows_of(run.table)) == 12
    return run


@pytest.fixture
def table(undisturbed: Undisturbed, tmp_path: Path) -> Path:
    """A copy of the finished run, to be damaged."""
    for file in undisturbed.table.parent.iterdir():
        if file.is_file():
            shutil.copy(file, tmp_path)
    return tmp_path / "answers.csv"


@pytest.mark.slow
def test_cut_off_at_many_points_it_ends_the_same(undisturbed: Undisturbed, table: Path) -> None:
    whole, records = table.read_bytes(), table.with_suffix(".jsonl").read_bytes()
    table.with_name("failed.csv").unlink()
    header = whole.index(b"\n") + 1
    for cut in (0, 7, header, *range(header + 11, len(whole), len(whole) // 7), len(whole) - 1):
        table.write_bytes(whole[:cut])
        # a record is written before its row, so that it is at least as far
        table.with_suffix(".jsonl").write_bytes(records[: min(len(records), len(records) * cut // len(whole) + 2000)])
        assert undisturbed.again(table).code == 8
        assert undisturbed.equals(table), cut


@pytest.mark.slow
def test_interrupted_then_killed_it_ends_the_same(tmp_path: Path) -> None:
    many = write_study(tmp_path / "study", images=8)
    call = ("batch", many, *QUESTIONS, "--evidence", tmp_path / "evidence", "-o", tmp_path / "answers.csv")
    first = start(*call)
    wait_for(first, "001-broken")
    first.send_signal(signal.SIGINT)
    wait_for(first, "note: ending after the image in hand")
    assert first.wait() == 130
    after_interrupt = rows_of(tmp_path / "answers.csv")
    assert 4 <= len(after_interrupt) < 20
    assert len(after_interrupt) % 2 == 0  # the image in hand was finished

    second = start(*call, "--retry-failed")
    wait_for(second, "001-broken")
    second.kill()
    second.wait()
    assert rows_of(tmp_path / "answers.csv")[: len(after_interrupt)] == after_interrupt
    assert dragonfly(*call).code == 8
    resumed = {path.name: path.read_bytes() for path in (tmp_path / "evidence").iterdir()}
    (tmp_path / "straight").mkdir()
    shutil.rmtree(tmp_path / "evidence")
    assert dragonfly(*call[:-1], tmp_path / "straight" / "answers.csv").code == 8
    assert bytes_of(tmp_path / "answers.csv") == bytes_of(tmp_path / "straight" / "answers.csv")
    assert {path.name: path.read_bytes() for path in (tmp_path / "evidence").iterdir()} == resumed


def tear_last_row(table: Path) -> None:
    table.write_bytes(table.read_bytes().rpartition(b"\r\n")[0])


@contextmanager
def hangup_as(handler: signal.Handlers) -> Iterator[None]:
    """For processes that are started meanwhile; the tests may be run behind nohup themselves."""
    before = signal.signal(signal.SIGHUP, handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGHUP, before)


@pytest.mark.parametrize("end", [signal.SIGHUP, signal.SIGTERM])
def test_a_run_that_is_told_to_end_leaves_nothing_in_the_way(
    undisturbed: Undisturbed, table: Path, end: signal.Signals
) -> None:
    """As by a terminal that is closed, here while the model is being loaded."""
    tear_last_row(table)
    with hangup_as(signal.SIG_DFL):
        run = start(*undisturbed.call(table))
    wait_for(run, "note: research use only")
    run.send_signal(end)
    assert run.wait() == 128 + end
    assert not list(table.parent.glob(".*holder"))
    assert "5 of 6 images are done" in undisturbed.again(table).stderr
    assert undisturbed.equals(table)


@pytest.mark.slow
def test_a_run_behind_nohup_outlives_its_terminal(undisturbed: Undisturbed, table: Path) -> None:
    tear_last_row(table)
    with hangup_as(signal.SIG_IGN):
        run = start(*undisturbed.call(table))
    wait_for(run, "note: research use only")
    run.send_signal(signal.SIGHUP)
    assert run.wait() == 8
    assert undisturbed.equals(table)


def test_a_finished_run_is_not_run_again(undisturbed: Undisturbed, table: Path) -> None:
    before = table.read_bytes()
    outcome = undisturbed.again(table)
    assert outcome.code == 8  # it is still true that some failed
    assert "6 of 6 images are done" in outcome.stderr
    assert table.read_bytes() == before


def test_a_slide_narrower_than_a_field_does_not_spoil_its_table(tmp_path: Path) -> None:
    """Such a field begins outside the slide, at a negative coordinate."""
    slide = write_svs(tmp_path / "core.svs", (3000, 300))
    call = ("batch", slide, "-q", "Is there necrosis?", "--budget", "2", "-o", tmp_path / "answers.csv")
    assert dragonfly(*call).code == 0
    assert ",-" in rows_of(tmp_path / "answers.csv")[0]["evidence"]
    assert "1 of 1 images are done" in dragonfly(*call).stderr


@pytest.mark.parametrize("own", [False, True], ids=["of the command", "of a manifest"])
def test_an_outline_that_was_drawn_anew_is_another_setting(tmp_path: Path, own: bool) -> None:
    slide, roi = write_svs(tmp_path / "slide.svs", (700, 500)), tmp_path / "roi.geojson"
    manifest = tmp_path / "list.csv"
    manifest.write_text(f"image,question,roi\n{slide},Is it?,{roi}\n")
    given = (manifest,) if own else (slide, "-q", "Is it?", "--roi", roi)
    call = ("batch", *given, "-m", str(TINY), "-o", tmp_path / "answers.csv")

    def draw(side: int) -> None:
        corners = [[0, 0], [side, 0], [side, 300], [0, 300], [0, 0]]
        geometry = {"type": "Polygon", "coordinates": [corners]}
        roi.write_text(json.dumps({"type": "Feature", "geometry": geometry, "properties": {}}))

    draw(300)
    assert dragonfly(*call).code == 0
    assert "1 of 1 images are done" in dragonfly(*call).stderr
    draw(400)
    expect_error(dragonfly(*call), 7, "answers.csv", "(roi_hashes)")


def test_a_bad_image_that_was_taken_out_is_no_failure_any_more(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_png(tmp_path / "films" / "a.png")
    (tmp_path / "films" / "b.png").write_bytes(b"broken")
    call = ("batch", tmp_path / "films", *QUESTIONS, "-o", tmp_path / "answers.csv")
    assert dragonfly(*call).code == 8
    (tmp_path / "films" / "b.png").unlink()
    again = dragonfly(*call)
    assert again.code == 0 and "no longer asked about: 2" in again.stderr
    assert not (tmp_path / "failed.csv").exists()


def test_a_table_behind_a_link_is_written_where_it_lies(tmp_path: Path) -> None:
    (tmp_path / "films").mkdir()
    write_png(tmp_path / "films" / "b.png")
    (tmp_path / "big").mkdir()
    link = tmp_path / "answers.csv"
    link.symlink_to("big/real.csv")
    call = ("batch", tmp_path / "films", *QUESTIONS, "-o", link)
    assert dragonfly(*call).code == 0
    write_png(tmp_path / "films" / "a.png")  # its rows belong above the others
    assert dragonfly(*call).code == 0
    assert link.is_symlink()
    images = [Path(row["image"]).name for row in rows_of(tmp_path / "big" / "real.csv")]
    assert images == ["a.png", "a.png", "b.png", "b.png"]


def test_a_link_to_where_nothing_can_be_written_is_refused_at_once(tmp_path: Path) -> None:
    write_png(tmp_path / "a.png")
    (tmp_path / "answers.csv").symlink_to("gone/real.csv")
    call = ("batch", tmp_path / "a.png", *QUESTIONS, "-o", tmp_path / "answers.csv")
    expect_error(dragonfly(*call), 7, "answers.csv", "there is no folder", "gone")


def saved_again(table: bytes, delimiter: str = ",", quoting: int = csv.QUOTE_MINIMAL, end: str = "\n") -> bytes:
    text = io.StringIO(newline="")
    rows = csv.reader(io.StringIO(table.decode(), newline=""))
    csv.writer(text, delimiter=delimiter, quoting=quoting, lineterminator=end).writerows(rows)  # type: ignore[arg-type]
    return text.getvalue().encode()


@pytest.mark.parametrize(
    "save",
    [
        lambda table: b"\xef\xbb\xbf" + table,
        saved_again,
        lambda table: saved_again(table, quoting=csv.QUOTE_ALL, end="\r\n"),
        lambda table: b"\xef\xbb\xbf" + saved_again(table, quoting=csv.QUOTE_ALL),
    ],
    ids=["mark", "line ends", "quotes", "all"],
)
def test_a_table_that_was_saved_again_is_taken_for_what_it_says(
    undisturbed: Undisturbed, table: Path, save: Callable[[bytes], bytes]
) -> None:
    """As spreadsheets and editors do, here before it had its last row."""
    table.write_bytes(save(table.read_bytes().rpartition(b"\r\n")[0].rpartition(b"\r\n")[0] + b"\r\n"))
    assert "5 of 6 images are done" in undisturbed.again(table).stderr
    assert undisturbed.equals(table)


@pytest.mark.parametrize(
    ("save", "words"),
    [
        (lambda table: saved_again(table, delimiter=";"), ["semicolons between"]),
        (lambda table: saved_again(table, delimiter="\t"), ["tabs between"]),
        (lambda table: table.replace(b",0.", b",.", 1), ["p_yes is ."]),
        (lambda table: table.replace(b"device,", b"device,truth,", 1), ["other columns: truth"]),
        (lambda table: table.replace(b"image,question", b"question,image", 1), ["another order"]),
        (lambda table: table.decode().encode("utf-16"), ["not a table"]),
    ],
)
def test_a_table_that_says_something_else_now_is_refused(
    undisturbed: Undisturbed, table: Path, save: Callable[[bytes], bytes], words: list[str]
) -> None:
    changed = save(table.read_bytes())
    table.write_bytes(changed)
    expect_error(undisturbed.again(table), 7, "answers.csv", *words)
    assert table.read_bytes() == changed


def test_two_runs_on_one_output_are_refused(undisturbed: Undisturbed, table: Path) -> None:
    before = table.read_bytes()
    with RunLock(table):
        outcome = undisturbed.again(table)
        expect_error(outcome, 7, "answers.csv", "another run", f"process {os.getpid()}", socket.gethostname())
    assert table.read_bytes() == before
    assert undisturbed.again(table).code == 8


def test_a_full_disk_is_told_and_made_good_later(undisturbed: Undisturbed, tmp_path: Path) -> None:
    table = tmp_path / "answers.csv"
    size = undisturbed.records.stat().st_size
    with files_limited_to(size // 2):
        outcome = undisturbed.again(table)
    assert outcome.code == 7
    assert "error: cannot write" in outcome.stderr
    assert "answers.jsonl" in outcome.stderr
    assert 0 < len(rows_of(table)) < 12
    assert undisturbed.again(table).code == 8
    assert undisturbed.equals(table)


def test_a_disk_without_any_room_is_left_as_it_was(undisturbed: Undisturbed, tmp_path: Path) -> None:
    with files_limited_to(0):
        expect_error(undisturbed.again(tmp_path / "answers.csv"), 7, "answers.csv")
    assert all(path.suffix == ".lock" for path in tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_to(undisturbed: Undisturbed) -> None:
    with tempfile.TemporaryDirectory() as closed:
        Path(closed).chmod(0o555)
        with may_not_write_everywhere():
            outcome = undisturbed.again(Path(closed, "answers.csv"))
    expect_error(outcome, 7, "answers.csv", "permission denied")


def test_images_that_vanish_are_failed_rows_and_keep_what_was_said(undisturbed: Undisturbed, table: Path) -> None:
    before = bytes_of(table)
    (undisturbed.study / "002.png").rename(undisturbed.study.parent / "gone.png")
    try:
        outcome = undisturbed.again(table)
        assert outcome.code == 8
        assert outcome.stderr.endswith("rows kept about images or questions that are no longer asked about: 2\n")
    finally:
        (undisturbed.study.parent / "gone.png").rename(undisturbed.study / "002.png")
    assert bytes_of(table) == before
    listed = f"{undisturbed.study}/000.png\n{undisturbed.study}/never.png\n".encode()
    outcome = dragonfly("batch", "-", *QUESTIONS, "-o", table.with_name("listed.csv"), stdin=listed)
    assert outcome.code == 8
    assert [row["error_code"] for row in rows_of(table.with_name("listed.csv"))] == ["", "", "3", "3"]
    assert bytes_of(table) == before  # a second table in the folder has its own companions
    assert table.with_name("listed.run.json").exists()


def test_failed_images_are_asked_again_when_told_to(undisturbed: Undisturbed, table: Path) -> None:
    broken = undisturbed.study / "001-broken.svs"
    content = broken.read_bytes()
    shutil.copy(undisturbed.study / "003.png", broken)
    try:
        assert undisturbed.again(table).code == 8
        assert undisturbed.equals(table)  # failed is an answer too, unless
        assert undisturbed.again(table, "--retry-failed").code == 0
    finally:
        broken.write_bytes(content)
    rows = rows_of(table)
    assert [row["status"] for row in rows] == ["ok"] * 12
    assert [row["image"] for row in rows] == [row["image"] for row in rows_of(undisturbed.table)]
    assert not table.with_name("failed.csv").exists()


def test_failures_stop_a_run_that_was_told_so(undisturbed: Undisturbed, tmp_path: Path) -> None:
    table = tmp_path / "answers.csv"
    outcome = undisturbed.again(table, "--fail-fast")
    assert outcome.code == 8
    assert "error: stopped" in outcome.stderr
    assert "images: 2 of 6" in outcome.stderr
    assert [Path(row["image"]).name for row in rows_of(table)] == ["000.png"] * 2 + ["001-broken.svs"] * 2
    assert undisturbed.again(table, "--max-errors", "1").code == 8  # it goes on behind the one that failed
    assert undisturbed.equals(table)


def test_another_table_s_settings_are_not_taken_for_its_own(undisturbed: Undisturbed, table: Path) -> None:
    expect_error(undisturbed.again(table, "--limit", "2"), 7, "answers.csv", "limit")
    record = json.loads(table.with_name("answers.jsonl").read_text().splitlines()[0])
    others = (record | {"question": 1.5}, record | {"row_options": [1]}, record | {"control": "blank"})
    for row in ("this is not a record", "[" * 10**5, *map(json.dumps, others)):
        table.with_name("answers.jsonl").write_text(f"{row}\n")
        expect_error(undisturbed.again(table), 7, "answers.jsonl", "not a table")


def test_records_that_another_run_writes_or_has_written_are_refused(undisturbed: Undisturbed, table: Path) -> None:
    """As when the tasks of an array name one file of records."""
    other = table.with_name("other.csv")
    call = (*undisturbed.call(other)[:-1], table.with_suffix(".jsonl"), "--limit", "1")
    expect_error(dragonfly(*call), 7, "answers.jsonl", "another run")
    with RunLock(table.with_name("both.jsonl")):
        expect_error(dragonfly(*call, "--records", table.with_name("both.jsonl")), 7, "both.jsonl", "is writing it")
    assert not other.exists()
    table.unlink()  # which leaves its own records without it
    assert undisturbed.again(table).code == 8
    assert undisturbed.equals(table)
