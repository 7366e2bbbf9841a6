"""The files of a run: whatever a kill leaves of them, exactly the whole rows are taken up again."""

import tempfile
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from dragonfly_cli.batch.progress import Progress, duration
from dragonfly_cli.batch.result import Result, key_of
from dragonfly_cli.batch.row_file import CsvRows, JsonRows, RowFile

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
@settings(deadline=None, max_examples=40)  # every example waits for the disk
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
@settings(deadline=None, max_examples=40)  # every example waits for the disk
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
