"""The files of a run: whatever a kill leaves of them, exactly the whole rows are taken up again."""

import errno
import io
import os
import subprocess
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

import pytest
from batch_runs import TINY
from hypothesis import given, settings
from hypothesis import strategies as st
from make_files import write_png
from run_dragonfly import dragonfly

from dragonfly_cli.batch.progress import Progress, duration
from dragonfly_cli.batch.result import Result, key_of
from dragonfly_cli.batch.row_file import RowFile
from dragonfly_cli.batch.row_formats import CsvRows, JsonRows
from dragonfly_cli.errors import OutputError
from dragonfly_cli.output.terminal import say

WRITES_HALF = """
import sys
from pathlib import Path
from dragonfly_cli.output.files import write_whole

def write(part):
    part.write_text("half")
    print("halfway", flush=True)
    sys.stdin.readline()

write_whole(Path(sys.argv[1]), write)
"""
CELLS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), max_size=12)
RESULTS = st.builds(
    lambda image, question, options, error: Result(key_of(image, question, options), None, 4, error),
    *(CELLS, CELLS, CELLS, CELLS),
)
FORMATS = pytest.mark.parametrize("rows", [CsvRows(), JsonRows()], ids=["csv", "jsonl"])


def written(path: Path, rows, results: list[Result]) -> bytes:
    file = RowFile(path, rows)
    file.open()
    for result in results:
        file.append([result])
    file.close()
    return path.read_bytes()


@FORMATS
@settings(max_examples=40)  # every example waits for the disk
@given(results=st.lists(RESULTS, min_size=1, max_size=5, unique_by=lambda result: result.key), data=st.data())
def test_a_torn_file_is_taken_up_at_its_last_whole_row(rows, results: list[Result], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "rows")
        whole = written(path, rows, results)
        cut = data.draw(st.integers(0, len(whole)))
        path.write_bytes(whole[:cut])
        file = RowFile(path, rows)
        held = file.open()
        assert list(held.values()) == results[: len(held)]
        file.append(results[len(held) :])
        assert path.read_bytes() == whole
        file.put_in_order({result.key: -number for number, result in enumerate(results)})
        assert path.read_bytes() == written(Path(folder, "turned"), rows, results[::-1])


@FORMATS
@settings(max_examples=40)  # every example waits for the disk
@given(results=st.lists(RESULTS, min_size=1, max_size=6, unique_by=lambda result: result.key), data=st.data())
def test_rows_end_in_their_order_and_the_last_of_two_counts(rows, results: list[Result], data: st.DataObject) -> None:
    with tempfile.TemporaryDirectory() as folder:
        straight = written(Path(folder, "straight"), rows, results)
        earlier = [Result(result.key, None, 5, "an earlier try") for result in data.draw(st.permutations(results))]
        path = Path(folder, "rows")
        written(path, rows, earlier)
        file = RowFile(path, rows)
        assert file.open() == {result.key: result for result in earlier}
        for result in data.draw(st.permutations(results)):
            file.append([result])
        file.put_in_order({result.key: number for number, result in enumerate(results)})
        assert path.read_bytes() == straight
        assert [each.name for each in Path(folder).iterdir() if each.name.startswith(".")] == []


@FORMATS
def test_a_row_may_be_longer_than_the_csv_module_reads_by_itself(rows, tmp_path: Path) -> None:
    long = Result(key_of("a", "Is it?", ""), None, 4, "1:0,0,96,96 " * 20_000)  # the boxes of a volume of 1500 slices
    written(tmp_path / "rows", rows, [long])
    assert RowFile(tmp_path / "rows", rows).read() == {long.key: long}


@FORMATS
@pytest.mark.parametrize("touch", [Path.unlink, lambda path: path.write_bytes(b"\xef\xbb\xbf" + path.read_bytes())])
def test_a_file_that_another_program_touches_meanwhile_takes_no_rows_that_would_be_lost(
    rows, touch: Callable[[Path], object], tmp_path: Path
) -> None:
    results = [Result(key_of(name, "Is it?", ""), None, 4, "why") for name in "ab"]
    file = RowFile(tmp_path / "rows", rows)
    file.open()
    file.append(results[:1])
    touch(tmp_path / "rows")
    for act in (lambda: file.append(results[1:]), lambda: file.put_in_order({})):
        with pytest.raises(OutputError, match=r"cannot write .*rows: (No such file|another program)"):
            act()
    file.close()
    again = RowFile(tmp_path / "rows", rows)
    again.open()
    again.append(results)
    assert list(RowFile(tmp_path / "rows", rows).read().values()) == results


@FORMATS
def test_a_row_whose_image_has_gone_stays_where_it_was(rows, tmp_path: Path) -> None:
    results = [Result(key_of(name, "Is it?", ""), None, 4, "why") for name in "abcd"]
    straight = written(tmp_path / "straight", rows, results)
    file = RowFile(tmp_path / "rows", rows)
    file.open()
    file.append([results[2], results[3], results[0], results[1]])
    file.put_in_order({result.key: number for number, result in enumerate(results) if result.key[0] != "d"})
    assert (tmp_path / "rows").read_bytes() == straight


def test_progress_is_told_in_plain_words() -> None:
    assert [duration(s) for s in (3, 89, 100, 3600, 25_500)] == ["3 s", "89 s", "2 min", "60 min", "7 h 05 min"]
    progress = Progress(10)
    assert "unknown time left" in progress.line()
    progress.advance(failed=False)
    progress.advance(failed=True)
    assert progress.line().startswith("images: 2 of 10, ")
    assert progress.line().endswith(" left, failed: 1")


class Terminal(io.TextIOWrapper):
    """One that can be closed while somebody writes to it."""

    is_gone = False

    def isatty(self) -> bool:
        return True

    def write(self, text: str) -> int:
        if self.is_gone:
            raise OSError(errno.EIO, os.strerror(errno.EIO))
        return super().write(text)


def test_a_terminal_that_is_closed_does_not_end_a_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    with Terminal((tmp_path / "shown").open("wb")) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(2) as progress:
            terminal.is_gone = True
            progress.advance(failed=False)
        assert "images" in (tmp_path / "shown").read_text()


def test_a_long_line_above_the_bar_is_whole(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "60")
    line = "error: cannot open " + "/a folder of many letters" * 8
    with Terminal((tmp_path / "shown").open("wb")) as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        with Progress(2):
            say(line)
    assert line in (tmp_path / "shown").read_text()


def test_what_a_killed_process_left_is_removed_by_the_next_and_nothing_else_is(tmp_path: Path) -> None:
    def hidden() -> set[str]:
        return {path.name for path in tmp_path.iterdir() if path.name.startswith(".")}

    def left_by_a_kill(path: Path) -> str:
        before = hidden()
        process = writing_half(path)
        process.kill()
        process.communicate()
        (left,) = hidden() - before
        return left

    image, foreign = write_png(tmp_path / "a.png"), ".run-abcdefgh.json"
    (tmp_path / foreign).write_text("of somebody else")
    left, other = left_by_a_kill(tmp_path / "run.json"), left_by_a_kill(tmp_path / "other.json")
    alive = writing_half(tmp_path / "run.json")
    (at_work,) = hidden() - {left, other, foreign}

    assert dragonfly("batch", image, "-q", "Is it?", "-m", TINY, "-o", tmp_path / "answers.csv").code == 0
    assert left not in hidden()
    assert hidden() >= {other, at_work, foreign}
    alive.communicate("go on\n")
    assert alive.returncode == 0
    assert (tmp_path / "run.json").read_text() == "half"  # it was moved there whole, by the last one to finish
    assert at_work not in hidden()


@pytest.mark.parametrize("mode", [0o600, 0o664])
def test_a_file_that_is_replaced_keeps_its_permissions(mode: int, tmp_path: Path) -> None:
    """The answers of a run may be for one person's eyes; the umask takes away some of what was given."""
    image, table, records = write_png(tmp_path / "b.png"), tmp_path / "answers.csv", tmp_path / "records.jsonl"
    call = ("batch", tmp_path, "-q", "Is it?", "-m", TINY, "-o", table, "--records", records)
    before = os.umask(0o022)
    try:
        assert dragonfly(*call).code == 0
        outputs = (table, records, tmp_path / "run.json")
        for file in outputs:
            file.chmod(mode)
        image.with_name("a.png").write_bytes(image.read_bytes())  # its rows belong above the others
        assert dragonfly(*call).code == 0
        assert {file.stat().st_mode & 0o777 for file in outputs} == {mode}
        process = writing_half(table)
        (part,) = tmp_path.glob(".dragonfly-*")
        assert part.stat().st_mode & 0o777 == mode
        process.communicate("go on\n")
    finally:
        os.umask(before)


def writing_half(path: Path) -> "subprocess.Popen[str]":
    """A process that stands in the middle of writing ``path``."""
    command = [sys.executable, "-c", WRITES_HALF, str(path)]
    process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "halfway\n"
    return process
