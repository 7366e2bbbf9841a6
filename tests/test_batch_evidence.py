"""``batch --evidence``: what ``ask`` draws of one image, for every image of a run, each in files of its own."""

import errno
import fcntl
import json
import os
import shutil
import tempfile
from pathlib import Path
from zlib import crc32

import numpy as np
import pytest
import tifffile
from batch_runs import QUESTIONS, files_limited_to, may_not_write_everywhere, rows_of, write_study
from hypothesis import given
from hypothesis import strategies as st
from make_files import write_png, write_svs
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.batch.evidence import evidence_name
from dragonfly_cli.batch.items import Item
from dragonfly_cli.engine.questions import as_question
from dragonfly_cli.options import LookOptions, OpenOptions
from dragonfly_cli.readers.inputs import Input


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run: ``study``, ``answers.csv``, ``answers.jsonl``, ``evidence``."""
    folder = tmp_path_factory.mktemp("run")
    study = write_study(folder / "study")
    (study / "other").mkdir()
    write_png(study / "other" / "000.png", (50, 40), "green")
    write_svs(study / "slide.svs", (1500, 1000))
    outcome = batch(folder, folder)
    assert outcome.code == 8, outcome.stderr
    return folder


def batch(run: Path, into: Path, *more: str | Path):
    """The run of this study with its outputs in a folder."""
    outputs = ("-o", into / "answers.csv", "--records", into / "answers.jsonl", "--evidence", into / "evidence")
    return dragonfly("batch", run / "study", *QUESTIONS, *outputs, *more)


def records_of(folder: Path) -> list[dict]:
    return [json.loads(line) for line in (folder / "answers.jsonl").read_text().splitlines()]


def files_of(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "evidence").iterdir()}


def test_every_answered_image_has_its_own_files_and_its_records_name_them(run: Path) -> None:
    named: dict[str, set[str]] = {}
    for record in records_of(run):
        if record["status"] == "ok":
            named.setdefault(record["image"], set()).update(record["evidence_files"].values())
    assert len(named) == 7  # four pictures, one of the same name elsewhere, a film, a slide; the broken one has none
    assert all(len(names) == 2 for names in named.values())
    assert sorted(name for names in named.values() for name in names) == sorted(files_of(run))
    assert "evidence_files" not in (run / "answers.csv").read_text()


@pytest.mark.parametrize("name", ["000.png", "other/000.png", "film.dcm", "slide.svs"])
def test_they_are_what_ask_writes(run: Path, tmp_path: Path, name: str) -> None:
    asked = (QUESTIONS[1], QUESTIONS[3], *QUESTIONS[4:])
    alone = {"geojson": tmp_path / "a.geojson", "overlay": tmp_path / "a.png"}
    files = [part for kind, path in alone.items() for part in (f"--{kind}", path)]
    assert dragonfly("ask", run / "study" / name, *asked, *files).code == 0
    written = next(each["evidence_files"] for each in records_of(run) if each["image"].endswith(f"study/{name}"))
    for kind, path in alone.items():
        assert (run / "evidence" / written[kind]).read_bytes() == path.read_bytes()
    boxes = json.loads(alone["geojson"].read_text())["features"]
    assert len(boxes) >= 2
    assert np.asarray(Image.open(alone["overlay"])).std() > 0


def test_a_run_that_was_cut_off_writes_what_is_missing_and_touches_nothing_else(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    lost = {name for each in records_of(run)[-4:] for name in each.get("evidence_files", {}).values()}
    for suffix in ("csv", "jsonl"):
        table = tmp_path / f"answers.{suffix}"
        table.write_bytes(b"".join(table.read_bytes().splitlines(keepends=True)[:-4]))
    for name in lost:
        (tmp_path / "evidence" / name).unlink()
        left = f".dragonfly-{crc32(name.encode()):08x}-0123456789abcdef.part"
        (tmp_path / "evidence" / left).write_bytes(b"as a killed worker leaves it")
    whole = [path for path in (tmp_path / "evidence").iterdir() if not path.name.startswith(".")]
    kept = {path.name: path.stat().st_mtime_ns for path in whole}
    settings = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(settings | {"evidence": str(tmp_path / "evidence")}))
    assert batch(run, tmp_path).code == 8
    assert files_of(tmp_path) == files_of(run)
    assert all((tmp_path / "evidence" / name).stat().st_mtime_ns == time for name, time in kept.items())
    without = ("-o", tmp_path / "answers.csv", "--records", tmp_path / "answers.jsonl")
    expect_error(dragonfly("batch", run / "study", *QUESTIONS, *without), 7, "answers.csv", "evidence")


@pytest.mark.parametrize("workers", ["1", pytest.param("2", marks=pytest.mark.slow)])
def test_a_full_disk_ends_the_run_and_is_no_failure_of_an_image(run: Path, tmp_path: Path, workers: str) -> None:
    largest = max(map(len, files_of(run).values()))
    with files_limited_to(largest - 1):
        outcome = batch(run, tmp_path, "--workers", workers)
    assert outcome.code == 7, outcome.stderr
    assert "error: cannot write" in outcome.stderr and "evidence" in outcome.stderr
    assert {row["error_code"] for row in rows_of(tmp_path / "answers.csv")} <= {"", "4"}
    assert files_of(tmp_path).keys() <= files_of(run).keys()
    assert batch(run, tmp_path).code == 8
    assert files_of(tmp_path) == files_of(run)
    assert rows_of(tmp_path / "answers.csv") == rows_of(run / "answers.csv")


def test_tiles_that_are_shown_white_are_told_of_a_batch_too(tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "a.svs", (1280, 1100), downsamples=())
    with tifffile.TiffFile(slide) as tiff:
        tile = tiff.pages[0].dataoffsets[7]
    with slide.open("r+b") as file:
        file.seek(tile)
        file.write(bytes(40))
    outcome = dragonfly("batch", slide, "-q", "Is it?", "-o", tmp_path / "a.csv")
    assert (outcome.code, rows_of(tmp_path / "a.csv")[0]["status"]) == (0, "ok")
    assert f"warning: {slide}: these tiles of the slide are shown white" in outcome.stderr


def test_what_is_named_by_a_row_is_on_the_disk_before_it(run: Path, tmp_path: Path) -> None:
    """Else a power cut could leave the row, and an empty picture."""
    synced: list[int] = []
    sync = os.fsync

    def watched(handle: int) -> None:
        synced.append(os.fstat(handle).st_ino)
        sync(handle)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "fsync", watched)
        assert batch(run, tmp_path, "--limit", "1").code == 0
    table = synced.index((tmp_path / "answers.csv").stat().st_ino)
    for path in (tmp_path / "evidence").iterdir():
        assert synced.index(path.stat().st_ino) < synced.index((tmp_path / "answers.csv").stat().st_ino, table + 1)


def test_a_folder_that_was_emptied_is_told(run: Path, tmp_path: Path) -> None:
    shutil.copytree(run, tmp_path, dirs_exist_ok=True)
    shutil.rmtree(tmp_path / "evidence")
    settings = json.loads((tmp_path / "run.json").read_text())
    (tmp_path / "run.json").write_text(json.dumps(settings | {"evidence": str(tmp_path / "evidence")}))
    outcome = batch(run, tmp_path)
    assert "8 of 8 images are done\n" in outcome.stderr
    assert f"warning: images that are done, but have no files in {tmp_path / 'evidence'}: 7; " in outcome.stderr


def test_runs_that_look_elsewhere_may_share_a_folder(run: Path, tmp_path: Path) -> None:
    shared = ("batch", run / "study" / "000.png", *QUESTIONS, "--evidence", tmp_path / "evidence", "-o")
    assert dragonfly(*shared, tmp_path / "whole.csv").code == 0
    first = files_of(tmp_path)
    assert dragonfly(*shared, tmp_path / "corner.csv", "--region", "0,0,20,20").code == 0
    assert len(files_of(tmp_path)) == 4
    assert files_of(tmp_path).items() > first.items()


def test_runs_at_the_same_time_do_not_meet_in_a_file_that_is_half_written(
    run: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    parts: list[Path] = []
    save = Image.Image.save

    def refused(picture: Image.Image, part: Path, **how: object) -> None:
        save(picture, part, **how)
        parts.append(part)
        assert part.exists()
        raise OSError(errno.ENOSPC, "No space left on device")

    shared = ("batch", run / "study" / "000.png", *QUESTIONS, "--evidence", tmp_path / "evidence", "-o")
    with monkeypatch.context() as patch:
        patch.setattr(Image.Image, "save", refused)
        outcomes = [dragonfly(*shared, tmp_path / name) for name in ("one.csv", "other.csv")]
    assert [outcome.code for outcome in outcomes] == [7, 7]
    assert len(set(parts)) == 2
    assert [Path(name).suffix for name in files_of(tmp_path)] == [".geojson"]  # nothing is left of what was refused
    with parts[0].open("wb") as being_written:
        fcntl.flock(being_written, fcntl.LOCK_EX)
        assert dragonfly(*shared, tmp_path / "third.csv").code == 0
        assert parts[0].exists()


def test_a_folder_that_cannot_be_is_refused_before_anything_is_written(run: Path, tmp_path: Path) -> None:
    study = run / "study"
    call = ("batch", study, *QUESTIONS, "-o", tmp_path / "a.csv", "--evidence")
    for inside in (study, study / "evidence"):
        expect_error(dragonfly(*call, inside), 2, "--evidence", "lies in the source")
    globbed = ("batch", study / "*" / "*.png", *call[2:], study / "evidence")
    expect_error(dragonfly(*globbed), 2, "--evidence", "lies in the source")
    expect_error(dragonfly(*call, study / "000.png"), 7, "000.png", "not a folder")
    expect_error(dragonfly(*call, tmp_path / "no" / "folder"), 7, "no folder")
    assert dragonfly(*call, tmp_path / "evidence", "--dry-run").code == 0
    assert not any(tmp_path.iterdir())


def test_a_folder_that_may_not_be_written_to_is_told_at_once() -> None:
    with tempfile.TemporaryDirectory() as folder:
        Path(folder).chmod(0o777)
        image, table, closed = write_png(Path(folder, "a.png")), Path(folder, "a.csv"), Path(folder, "closed")
        closed.mkdir(mode=0o555)
        with may_not_write_everywhere():
            outcome = dragonfly("batch", image, *QUESTIONS, "-o", table, "--evidence", closed)
        expect_error(outcome, 7, "closed", "permission denied")
        assert not table.exists()


def item_of(image: str, questions: list[str], row_options: str) -> Item:
    def never(options: OpenOptions):
        raise AssertionError("it was opened")

    asked = tuple(as_question(text) for text in questions)
    return Item(Input(image, never), asked, OpenOptions(), LookOptions(), row_options)


ITEMS = st.builds(item_of, st.text(min_size=1), st.lists(st.text(), min_size=1, max_size=2), st.text())


@given(st.lists(ITEMS, min_size=2, max_size=4))
def test_whatever_a_path_holds_names_are_safe_and_differ(items: list[Item]) -> None:
    names = {evidence_name(item, settings) for item in items for settings in ("", "others")}
    assert len(names) == 2 * len({tuple(item.keys) for item in items})
    for name in names:
        assert "/" not in name and "\\" not in name and "\0" not in name and not name.startswith(".")
        assert len(f".{name}-12345678.geojson".encode()) <= 255


@pytest.mark.parametrize(
    "image", ["../../etc/passwd", "/data/p\u00e4tient/..", "a\\b:c*?.png", "\udcff.png", "." * 300]
)
def test_no_name_leads_out_of_its_folder(image: str, tmp_path: Path) -> None:
    path = tmp_path / f"{evidence_name(item_of(image, ['Is it?'], ''), '')}.png"
    path.write_bytes(b"")
    assert [each.parent for each in tmp_path.iterdir()] == [tmp_path]


def test_no_patient_tag_is_written(run: Path) -> None:
    for path in run.rglob("*"):
        if path.is_file() and run / "study" not in path.parents:
            assert b"secret" not in (path.name.encode() + path.read_bytes()).lower()
