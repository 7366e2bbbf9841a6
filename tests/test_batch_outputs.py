"""What a run writes beside its table is its own: nothing of another run, or of somebody else, is written over."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from batch_runs import TINY, rows_of
from make_files import write_png
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.batch.ledger import Ledger, Outputs
from dragonfly_cli.batch.options import TableOptions

ASKED = ("-q", "Is it?", "-m", TINY, "--max-tokens", "2")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The current one, with an image and a broken one."""
    monkeypatch.chdir(tmp_path)
    write_png(tmp_path / "a.png")
    (tmp_path / "b.png").write_text("broken")
    return tmp_path


def batch(*arguments: str | Path):
    return dragonfly("batch", *arguments, *ASKED)


def test_a_schema_may_come_through_a_pipe(folder: Path) -> None:
    """As from `<(...)`, which can be read once."""
    read, write = os.pipe()
    os.write(write, b'{"const": "a"}')
    os.close(write)
    outcome = batch("a.png", "--schema", f"/dev/fd/{read}", "-o", "answers.csv", "--dry-run")
    os.close(read)
    assert outcome.code == 0, outcome.stderr


def test_a_list_of_failures_that_is_worked_through_again_stays(folder: Path) -> None:
    listed = "image\na.png\nb.png\n"
    Path("failed.csv").write_text(listed)
    for _ in range(2):
        assert batch("failed.csv", "-o", "again.csv").code == 8
        assert Path("failed.csv").read_text() == listed
    assert [row["image"] for row in rows_of(Path("again.failed.csv"))] == ["b.png"]


def test_a_file_of_another_program_is_not_taken_for_a_run(folder: Path) -> None:
    for foreign in ('{"instrument": "scanner 3"}', "[]", ""):
        Path("run.json").write_text(foreign)
        assert batch("a.png", "-o", "answers.csv").code == 0
        assert Path("run.json").read_text() == foreign
    assert json.loads(Path("answers.run.json").read_text())["finished"]


def test_a_parquet_file_is_replaced_only_by_the_run_that_it_was_made_of(folder: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    parquet.write_table(pyarrow.table({"image": ["a.png"]}), "list.parquet")
    before = Path("list.parquet").read_bytes()
    expect_error(batch("list.parquet", "-o", "list.parquet"), 7, "list.parquet", "without the list.csv")
    assert Path("list.parquet").read_bytes() == before
    for _ in range(2):
        assert batch("a.png", "-o", "answers.parquet").code == 0
    Path("answers.csv").unlink()
    expect_error(batch("a.png", "-o", "answers.parquet"), 7, "answers.parquet")


def test_numbers_are_numbers_in_parquet_and_empty_ones_are_null(folder: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    assert batch("a.png", "b.png", "--control", "blank", "-o", "answers.parquet").code == 8
    answered, failed = parquet.read_table("answers.parquet").to_pylist()
    written, _ = rows_of(Path("answers.csv"))
    for name in ("p_yes", "p_no", "option_mass", "control_distance"):
        assert answered[name] == float(written[name])
        assert failed[name] is None
    assert (answered["calibrated_yes"], answered["fields"], failed["error_code"]) == (None, 1, 4)


def test_tables_of_one_name_and_other_formats_keep_their_settings_apart(folder: Path) -> None:
    calls = [("a.png", "-o", "answers.csv"), ("a.png", "--seed", "3", "-o", "answers.jsonl")]
    calls.append(("a.png", "--seed", "5", "-o", "answers.ndjson"))
    for call in calls:
        assert batch(*call).code == 0
    for call in calls:
        assert "1 of 1 images are done" in batch(*call).stderr
    expect_error(batch("a.png", "--seed", "5", "-o", "answers.csv"), 7, "answers.csv", "seed")


def test_of_two_runs_that_begin_together_each_has_its_own_settings(folder: Path) -> None:
    ledgers = [Ledger(Outputs.of(TableOptions(Path(f"{name}.csv"))), {"seed": name}) for name in "xy"]
    for ledger in ledgers:
        ledger.refuse_other_run()  # neither has written anything yet
    for ledger in ledgers:
        ledger.open()
        ledger.close()
    for ledger in ledgers:
        ledger.refuse_other_run()
    assert {path.name for path in folder.glob("*run.json")} == {"run.json", "y.run.json"}


def test_what_libraries_print_into_a_closed_stream_goes_into_no_file(folder: Path) -> None:
    closing = "import os; os.close(1); os.close(2)"
    opening = "from dragonfly_cli.output.streams import occupy_closed; occupy_closed(); table = open('a.csv', 'wb')"
    printing = "os.write(2, b'warning'); table.write(str(table.fileno()).encode())"
    subprocess.run([sys.executable, "-c", "\n".join([closing, opening, printing])], check=True, env=os.environ)
    assert int(Path("a.csv").read_bytes()) > 2
