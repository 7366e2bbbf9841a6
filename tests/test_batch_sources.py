"""What a batch is about: folders, globs, lists, manifests with options of their own; which of it, in which order."""

import json
import os
import tempfile
import zipfile
from pathlib import Path

import numpy as np
import pytest
from batch_runs import QUESTIONS, TINY, items_named, may_not_write_everywhere, rows_of, write_study
from hypothesis import given
from hypothesis import strategies as st
from make_files import write_dicom, write_png, write_svs
from make_series import write_ct
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.batch.items import Item, Shard, find_items, read_shard, select, shard_of
from dragonfly_cli.batch.options import BatchOptions, FileOptions, SelectOptions, StopOptions, WorkOptions
from dragonfly_cli.engine.questions import as_question
from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.options import AnswerOptions, FormOptions, LookOptions, OpenOptions

ASKED = [as_question("Is it?")]


def found(*sources: Path) -> list[Item]:
    chosen = FormOptions(), OpenOptions(), LookOptions(budget=2), AnswerOptions()
    options = BatchOptions(FileOptions(Path("unused.csv")), *chosen, SelectOptions(), StopOptions(), WorkOptions())
    return find_items(list(sources), ASKED, options)


def names(items: list[Item]) -> list[str]:
    return [Path(item.image).name for item in items]


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_study(tmp_path / "study")


def test_sources_are_taken_in_order_and_each_image_once(study: Path) -> None:
    assert names(found(study)) == ["000.png", "001-broken.svs", "001.png", "002.png", "003.png", "film.dcm"]
    assert names(found(study / "*2.png", study / "film.dcm", study))[:3] == ["002.png", "film.dcm", "000.png"]
    assert names(found(study.parent / "**" / "00[12].png")) == ["001.png", "002.png"]


def test_some_of_them_are_chosen_and_stay_in_order(study: Path) -> None:
    items = found(study)
    drawn = select(items, SelectOptions(sample=3), seed=1)
    assert drawn == select(items, SelectOptions(sample=3), seed=1)
    assert [item for item in items if item in drawn] == drawn
    assert any(select(items, SelectOptions(sample=3), seed) != drawn for seed in range(2, 12))
    assert select(items, SelectOptions(limit=2), 0) == items[:2]
    assert select(items, SelectOptions(sample=100), 0) == items


@given(st.integers(0, 40), st.integers(1, 12))
def test_every_image_is_in_exactly_one_shard(images: int, count: int) -> None:
    items = items_named(images)
    shards = [shard_of(items, Shard(index, count)) for index in range(count)]
    assert sorted(names([item for shard in shards for item in shard])) == sorted(names(items))
    assert max(map(len, shards)) - min(map(len, shards)) <= 1


def test_shards_are_given_or_taken_from_a_job_array() -> None:
    assert read_shard(None) == Shard(0, 1)
    assert read_shard("2/3") == Shard(1, 3)
    task = {"ID": "12", "MIN": "10", "MAX": "13", "COUNT": "4"}
    array = {f"SLURM_ARRAY_TASK_{name}": value for name, value in task.items()}
    assert read_shard("slurm", array) == Shard(2, 4)
    for wrong in ("0/3", "4/3", "2", "a/b", "-1/2", "1/0"):
        with pytest.raises(UsageError, match="--shard"):
            read_shard(wrong)
    for environment in ({}, array | {"SLURM_ARRAY_TASK_COUNT": "2"}):  # not an array; one with gaps
        with pytest.raises(UsageError, match="slurm"):
            read_shard("slurm", environment)


MANIFEST = """image,Question,frame,slide-mpp,patient
study/film.dcm,Is there a tumour?,2,,A
study/film.dcm,Is there a tumour?,0,0.5,B
study/film.dcm,,,,C
study/000.png,Is it?,,,D
study/000.png,Is it?,,,E
"""


def check_manifest(manifest: Path, capsys: pytest.CaptureFixture[str]) -> None:
    items = found(manifest)
    assert names(items) == ["film.dcm", "film.dcm", "film.dcm", "000.png"]
    assert [item.looking for item in items] == [LookOptions(frame=frame, budget=2) for frame in (2, 0, None, None)]
    assert [item.opening.slide_mpp for item in items] == [None, 0.5, None, None]
    assert [item.row_options for item in items] == ["frame=2", "frame=0 slide_mpp=0.5", "", ""]
    assert [item.questions[0].text for item in items] == ["Is there a tumour?"] * 2 + ["Is it?"] * 2
    assert all(Path(item.image).exists() for item in items)
    said = capsys.readouterr().err
    assert "columns that are not used: patient" in said
    assert "A" not in said.split("patient")[1]


def test_a_manifest_sets_questions_and_options_by_row(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    manifest = study.parent / "list.csv"
    manifest.write_text("\ufeff" + MANIFEST, encoding="utf-8")
    check_manifest(manifest, capsys)
    manifest.write_text(MANIFEST.replace(",", ";"))
    check_manifest(manifest, capsys)
    rows = [line.split(",") for line in MANIFEST.splitlines()]
    lines = [dict(zip(rows[0], [cell or None for cell in row], strict=True)) for row in rows[1:]]
    lines[0]["frame"] = 2  # type: ignore[assignment]
    json_lines = study.parent / "list.jsonl"
    json_lines.write_text("\n".join(map(json.dumps, lines)))
    check_manifest(json_lines, capsys)


def test_a_manifest_may_be_parquet(study: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    rows = [line.split(",") for line in MANIFEST.splitlines()]
    table = pyarrow.Table.from_pylist([dict(zip(rows[0], [c or None for c in row], strict=True)) for row in rows[1:]])
    parquet.write_table(table, study.parent / "list.parquet")
    check_manifest(study.parent / "list.parquet", capsys)


def test_a_value_of_parquet_that_cannot_be_decoded_matters_only_where_it_is_used(study: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow import parquet

    manifest = study.parent / "list.parquet"
    late = pyarrow.array([2**62, None], pyarrow.timestamp("us"))  # of no year that Python knows
    torn = pyarrow.StringArray.from_buffers(
        2, pyarrow.py_buffer(b"\0\0\0\0\2\0\0\0\3\0\0\0"), pyarrow.py_buffer(b"\xff\xfea")
    )
    images = pyarrow.array(["study/000.png", "study/001.png"])
    parquet.write_table(pyarrow.table({"image": images, "taken": late, "error": torn}), manifest)
    assert names(found(manifest)) == ["000.png", "001.png"]
    for name, column in {"image": torn, "question": torn, "Slide-mpp": late}.items():
        parquet.write_table(pyarrow.table({"image": images} | {name: column}), manifest)
        outcome = dragonfly("batch", manifest, *QUESTIONS, "-o", tmp_path / "answers.csv")
        expect_error(outcome, 4, f"list.parquet, row 1: {name}", "cannot be decoded")
    parquet.write_table(pyarrow.table({"image": [None, "study/001.png"], "taken": late}), manifest)
    with pytest.raises(InputError, match="row 1: there is no image"):  # as the row is not without a filled cell
        found(manifest)


def test_what_is_wrong_with_a_manifest_is_told_before_anything_runs(study: Path, tmp_path: Path) -> None:
    manifest, output = tmp_path / "list.csv", tmp_path / "answers.csv"

    def told(text: str, code: int, *words: str) -> None:
        manifest.write_text(text)
        outcome = dragonfly("batch", manifest, *QUESTIONS, "-o", output)
        expect_error(outcome, code, "list.csv", *words)
        assert "Secret" not in outcome.stderr

    told("image,frame\nstudy/film.dcm,third\n", 2, "row 1", "--frame", "third")
    told("image,frame\nstudy/film.dcm,-1\n", 2, "row 1", "--frame")
    told("image,region\nstudy/film.dcm,abc\n", 2, "row 1: --region abc")
    told('image,region\nstudy/film.dcm,"0,0,0mm,5mm"\n', 2, "row 1: --region 0,0,0mm,5mm", "less than a pixel")
    told('image,center,fov\nstudy/film.dcm,"5,5",0um\n', 2, "row 1: --fov 0um", "less than a pixel")
    told("image,slide-mpp\nstudy/000.png,0.5\nstudy/001.png,0\n", 2, "row 2: --slide-mpp 0", "microns per pixel")
    told("image,mpp\nstudy/film.dcm,0\n", 2, "row 1: --mpp must be above 0")
    told("image,time-limit\nstudy/film.dcm,-1\n", 2, "row 1: --time-limit must be above 0")
    told("image,budget\nstudy/film.dcm,0\n", 2, "row 1", "--budget")
    told("image,fov\nstudy/film.dcm,500um\n", 2, "row 1: --fov", "--center")
    told("picture\nstudy/film.dcm\n", 4, "row 1", "no image")
    told("study/000.png,Secret^Name\nstudy/001.png,Other^Name\n", 4, "row 1", "no image")
    told("image,bounds_offset\nstudy/film.dcm,perhaps\n", 2, "row 1", "perhaps")
    told("image,row_options\nstudy/film.dcm,colour=red\n", 2, "row 1", "colour=red")
    told('image,question\n"study/film', 4, "line 2", "quotes")
    told('image,question\nstudy/000.png,Is it?\nstudy/001.png,"Is it" red?\n', 4, "line 3", "quotes")
    told("image,question\nstudy/000.png,Is it red, or blue?\n", 4, "row 1", "more cells")
    told("image,question\nstudy/000.png,' '\nstudy/000.png, \n", 2, "row 2", "empty")
    told('image,row_options\nstudy/film.dcm,"frame=\'1"\n', 2, "row 1", "row_options")
    told("image\nstudy/0\x0000.png\n", 4, "row 1", "zero byte")
    told("image,slice,slices\nstudy/film.dcm,1,2\n", 4, "row 1", "slice and slices are two columns")
    told("image,Slices,mpp,Slice\nstudy/film.dcm,,,2\n", 4, "row 1", "slices and slice are two columns")
    told("image,Image\nstudy/film.dcm,study/000.png\n", 4, "two columns have the same name")
    assert not output.exists()
    manifest.write_text("image\nstudy/\xfcn.png\n", encoding="latin-1")
    expect_error(dragonfly("batch", manifest, *QUESTIONS, "-o", output), 4, "list.csv", "UTF-8")
    (tmp_path / "list.jsonl").write_text('{"image": "study/000.png"}\n\n["study/000.png"]\n')
    expect_error(dragonfly("batch", tmp_path / "list.jsonl", *QUESTIONS, "-o", output), 4, "list.jsonl, row 2", "JSON")
    for lines, words in (
        ('{"image": "study/000.png", "question": ["Is it?", "Is it red?"]}', ("row 1", "question is no text")),
        ('{"image": "study/000.png"}\n{"image": ["study/000.png", "study/001.png"]}', ("row 2", "image is no text")),
        ('{"image": "study/film.dcm", "slice": 1, "slices": 2}', ("row 1", "slice and slices are two columns")),
        ('{"image": "study/000.png", "Image": "study/001.png"}', ("row 1", "two columns have the same name")),
        ('{"image": "study/000.png", "image": "study/001.png"}', ("row 1", "two columns have the same name")),
        ('{"image": "study/000.png", "roi": "a\\u0000.geojson"}', ("row 1", "zero byte")),
        ('{"image": "study/000.png", "roi": "\\ud800"}', ("row 1", "half a letter")),
    ):
        (tmp_path / "list.jsonl").write_text(lines)
        expect_error(dragonfly("batch", tmp_path / "list.jsonl", *QUESTIONS, "-o", output), 4, "list.jsonl", *words)
    (tmp_path / "list.jsonl").write_text('{"image": "study/000.png", "more": ' + "[" * 10**5 + "]" * 10**5 + "}")
    expect_error(dragonfly("batch", tmp_path / "list.jsonl", *QUESTIONS, "-o", output), 4, "list.jsonl, row 1", "JSON")
    (tmp_path / "list.jsonl").write_text('{"image": "\\ud800.png"}')
    expect_error(dragonfly("batch", tmp_path / "list.jsonl", *QUESTIONS, "-o", output), 4, "row 1", "half a letter")
    (tmp_path / "list.parquet").write_text("not parquet")
    expect_error(dragonfly("batch", tmp_path / "list.parquet", *QUESTIONS, "-o", output), 4, "list.parquet")


def test_a_manifest_may_be_as_other_programs_write_it(study: Path) -> None:
    """Empty rows at the end, a mark in front of JSON, numbers of a column with gaps."""
    manifest = study.parent / "list.csv"
    manifest.write_text("\ufeffimage,frame\r\n\r\nstudy/film.dcm,1,,\r\n,\r\n", encoding="utf-8", newline="")
    assert [item.row_options for item in found(manifest)] == ["frame=1"]
    json_lines = study.parent / "list.jsonl"
    lines = ({"image": "study/film.dcm", "frame": frame} for frame in (1.0, float("nan"), 0.0))
    json_lines.write_text("\ufeff" + "\r\n".join(map(json.dumps, lines)), encoding="utf-8")
    assert [item.row_options for item in found(json_lines)] == ["frame=1", "", "frame=0"]
    manifest.write_text("image,frame,mpp,bounds-offset\nstudy/film.dcm,2.0,,no\nstudy/film.dcm,,0.50,yes\n")
    items = found(manifest)
    assert [(item.looking.frame, item.looking.mpp) for item in items] == [(2, None), (None, 0.5)]
    assert [item.looking.bounds_offset for item in items] == [False, True]
    assert [item.row_options for item in items] == ["bounds_offset=no frame=2", "bounds_offset=yes mpp=0.50"]


def test_a_name_that_means_two_files_is_refused(study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_png(tmp_path / "000.png")
    (study / "list.csv").write_text("image\n000.png\n")
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"000\.png"):
        found(study / "list.csv")
    (tmp_path / "000.png").unlink()
    assert Path(found(study / "list.csv")[0].image).samefile(study / "000.png")


def test_outlines_are_looked_for_where_images_are(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside the manifest, and in what failed, which names them as seen from here, beside that."""
    (tmp_path / "drawn").mkdir()
    write_svs(tmp_path / "drawn" / "slide.svs", (1500, 1000))
    square = [[200, 200], [900, 200], [900, 800], [200, 800], [200, 200]]
    outline = {"type": "Feature", "geometry": {"type": "Polygon", "coordinates": [square]}, "properties": {}}
    (tmp_path / "drawn" / "mine.geojson").write_text(json.dumps(outline))
    manifest = tmp_path / "drawn" / "list.csv"
    manifest.write_text("image,roi\nslide.svs,mine.geojson\nslide.svs,no.geojson\n")
    monkeypatch.chdir(tmp_path)
    call = ("batch", "drawn/list.csv", "-q", "Is it?", "-m", TINY, "-o", "answers.csv")
    assert dragonfly(*call).code == 8
    rows = rows_of(Path("answers.csv"))
    assert [(row["row_options"], row["error"]) for row in rows] == [
        ("roi=drawn/mine.geojson", ""),
        ("roi=no.geojson", "no such file: no.geojson"),
    ]
    manifest.write_text("image,row_options\ndrawn/slide.svs,roi=drawn/mine.geojson\n")
    assert [item.row_options for item in found(manifest)] == ["roi=drawn/mine.geojson"]
    (tmp_path / "mine.geojson").write_text("{}")
    manifest.write_text("image,roi\nslide.svs,mine.geojson\n")
    expect_error(dragonfly(*call), 4, "row 1: mine.geojson is one file seen from this folder and another")


@pytest.mark.parametrize("together", ["1", "2"])
def test_a_question_of_a_manifest_that_is_too_long_fails_alone(tmp_path: Path, together: str) -> None:
    """It ended the run, before any other question was asked."""
    for name in ("a.png", "b.png"):
        write_png(tmp_path / name, (60, 40))
    lines = ["image,question", "a.png,Is it one?", f"a.png,{'why ' * 3000}", "a.png,Is it two?", "b.png,Is it one?"]
    (tmp_path / "rows.csv").write_text("\n".join(lines) + "\n")
    table, shown = tmp_path / "answers.csv", tmp_path / "shown"
    call = ("-o", table, "-m", TINY, "--together", together, "--evidence", shown)
    assert dragonfly("batch", tmp_path / "rows.csv", *call).code == 8
    rows = rows_of(table)
    assert [(row["status"], row["error_code"]) for row in rows] == [("ok", ""), ("failed", "2"), ("ok", ""), ("ok", "")]
    assert "too long" in rows[1]["error"] and all(row["p_yes"] for row in (rows[0], *rows[2:]))
    assert [row["question"] for row in rows_of(tmp_path / "failed.csv")] == [lines[2].removeprefix("a.png,")]
    again = dragonfly("batch", tmp_path / "rows.csv", *call)
    assert again.code == 8 and "have no files" not in again.stderr
    expect_error(dragonfly("batch", tmp_path / "a.png", "-q", "why " * 3000, "-o", tmp_path / "b.csv"), 2, "too long")
    assert not (tmp_path / "b.csv").exists()


def test_rows_of_a_manifest_are_answered_as_it_says_and_its_failures_are_the_next_one(tmp_path: Path) -> None:
    study = write_study(tmp_path / "study")
    (tmp_path / "list.csv").write_text("image,frame\nstudy/film.dcm,2\nstudy/film.dcm,0\nstudy/film.dcm,7\n")
    output = tmp_path / "answers.jsonl"
    outcome = dragonfly("batch", tmp_path / "list.csv", "-q", "Is it?", "-m", TINY, "-o", output)
    assert outcome.code == 8
    records = [json.loads(line) for line in output.read_text().splitlines()]
    assert [record["row_options"] for record in records] == ["frame=2", "frame=0", "frame=7"]
    assert [[field["frame"] for field in record.get("fields", [])] for record in records] == [[2], [0], []]
    assert [record["status"] for record in records] == ["ok", "ok", "failed"]
    assert records[2]["error_code"] == 2

    (tmp_path / "more").mkdir()
    again = dragonfly("batch", tmp_path / "failed.csv", "-m", TINY, "-o", tmp_path / "more" / "answers.csv")
    assert again.code == 8
    (row,) = rows_of(tmp_path / "more" / "answers.csv")
    assert (row["image"], row["question"]) == (str(study / "film.dcm"), "Is it?")
    assert (row["row_options"], row["error_code"]) == ("frame=7", "2")


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be"])
def test_a_list_of_paths_in_another_encoding_is_refused(study: Path, tmp_path: Path, encoding: str) -> None:
    """Each letter would be a path of its own, and a slash all of the disk."""
    call = ("batch", "-", "-q", "Is it?", "-m", TINY, "-o", tmp_path / "answers.csv")
    expect_error(dragonfly(*call, stdin=f"{study}/000.png\r\n".encode(encoding)), 4, "stdin", "UTF-8")
    assert not (tmp_path / "answers.csv").exists()
    assert dragonfly(*call, stdin=f"{study}/000.png\r\n".encode("utf-8-sig")).code == 0


def test_zero_bytes_between_the_paths_of_find_are_no_other_encoding(study: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(study)
    call = ("batch", "-", "-q", "Is it?", "-m", TINY, "-o", tmp_path / "answers.csv")
    assert dragonfly(*call, "--dry-run", stdin=b".\x00./000.png\x00").code == 0


def test_a_folder_without_an_image_among_others_is_told(study: Path, tmp_path: Path) -> None:
    (tmp_path / "lost").mkdir()
    (tmp_path / "lost" / "notes.txt").write_text("nothing here")
    call = ("batch", study / "000.png", tmp_path / "lost", *QUESTIONS, "-o", tmp_path / "answers.csv")
    outcome = dragonfly(*call)
    assert outcome.code == 0 and f"warning: no image below {tmp_path / 'lost'}\n" in outcome.stderr


def test_a_space_before_a_quote_is_told(study: Path, tmp_path: Path) -> None:
    """The quotes would be part of the question, which would be none for yes or no."""
    (tmp_path / "list.csv").write_text(f'image, question\n{study}/000.png, "Is it red?"\n')
    call = ("batch", tmp_path / "list.csv", "-m", TINY, "-o", tmp_path / "answers.csv")
    expect_error(dragonfly(*call), 4, "row 1", "a quote follows a space")


@pytest.mark.parametrize("listed", [True, False])
def test_what_never_ends_is_not_read(listed: bool, study: Path, tmp_path: Path) -> None:
    os.mkfifo(study / "pipe.png")
    (study / "zeros.png").symlink_to("/dev/zero")
    (study / "empty.png").write_bytes(b"")
    lines = "".join(f"{study}/{name}.png\n" for name in ("pipe", "zeros", "empty", "000")) if listed else f"{study}\n"
    outcome = dragonfly("batch", "-", "-q", "Is it?", "-m", TINY, "-o", tmp_path / "answers.csv", stdin=lines)
    assert outcome.code == 8
    assert "ok" in {row["status"] for row in rows_of(tmp_path / "answers.csv")}
    assert "the file is empty" in outcome.stderr
    assert outcome.stderr.count("it is a pipe or a device") == (2 if listed else 0)


def test_a_file_named_from_here_and_from_the_root_is_asked_about_once(
    study: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "list.csv").write_text(
        f"image,question\nstudy/000.png,Is it?\n{study}/000.png,Is it?\n{study}/000.png,\n"
    )
    (item,) = found(Path("list.csv"), study / "000.png")
    assert item.image == "study/000.png"
    assert [question.text for question in item.questions] == ["Is it?"]


def test_a_series_of_a_folder_that_a_manifest_names_too_is_asked_about_once(tmp_path: Path) -> None:
    case = write_ct(tmp_path / "case")
    manifest = tmp_path / "rows.csv"
    manifest.write_text(f'image,question\n"{case}",Is it?\n"{case}",Is it bone?\n')
    for sources in ([case, manifest], [manifest, case]):
        (item,) = found(*sources)
        assert item.image == str(case)
        assert {question.text for question in item.questions} == {"Is it?", "Is it bone?"}


def test_an_image_behind_a_link_is_asked_about_once(study: Path, tmp_path: Path) -> None:
    (tmp_path / "again").symlink_to("study")
    (study / "loop").symlink_to(".")
    (study / "zz.png").symlink_to("000.png")
    (study / "slices").mkdir()
    for number in (1, 2):
        (study / "slices" / f"{number}.dcm").write_bytes(slice_of(tmp_path, "1.2", number))
    write_zip(study / "two.zip", {f"{uid}/1": slice_of(tmp_path, uid, 1) for uid in ("1.3", "1.4")})
    own = ["000.png", "001-broken.svs", "001.png", "002.png", "003.png", "film.dcm", "slices", "two.zip#1", "two.zip#2"]
    assert names(found(study)) == own
    assert names(found(study, study.parent / "again", study / ".." / "study", study / "000.png")) == own
    (tmp_path / "list.csv").write_text("image\nstudy/000.png\nstudy/zz.png\n")  # somebody wants a row for each
    assert names(found(tmp_path / "list.csv")) == ["000.png", "zz.png"]


def test_what_may_not_be_looked_into_is_a_failed_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """A folder that is closed, one whose files can only be named, and a link to itself."""
    with tempfile.TemporaryDirectory() as place:
        monkeypatch.setenv("DRAGONFLY_CALIBRATIONS", place)
        folder, table = Path(place, "study"), Path(place, "answers.csv")
        Path(place).chmod(0o777)
        for name in ("closed", "named"):
            (folder / name).mkdir(parents=True)
            write_png(folder / name / "a.png")
        (folder / "link").symlink_to("link")
        (folder / "closed").chmod(0)
        (folder / "named").chmod(0o744)
        lines = f"{folder}\n{folder}/link/b.png\n"
        call = ("batch", "-", "-q", "Is it?", "-m", TINY, "-o", table, "--evidence", Path(place, "evidence"))
        with may_not_write_everywhere():
            outcome = dragonfly(*call, stdin=lines)
        assert outcome.code == 8, outcome.stderr
        rows = {row["image"].removeprefix(f"{folder}/"): row["error"] for row in rows_of(table)}
    assert list(rows) == ["closed", "named/a.png", "link/b.png"]
    assert "permission denied" in rows["closed"] and "permission denied" in rows["named/a.png"]


def test_a_name_of_two_lines_is_told_in_one(tmp_path: Path) -> None:
    (tmp_path / "a\nerror: b.png").write_text("broken")
    (tmp_path / "gone.png").symlink_to("nowhere")
    outcome = dragonfly("batch", tmp_path, "-q", "Is it?", "-m", TINY, "-o", tmp_path / "answers.csv")
    assert outcome.code == 8
    assert [row["error_code"] for row in rows_of(tmp_path / "answers.csv")] == ["4", "3"]
    assert sum(line.startswith("error: ") for line in outcome.stderr.splitlines()) == 2


def test_a_line_that_is_no_path_fails_alone(study: Path, tmp_path: Path) -> None:
    lines = f"{study}/000.png\n{'Is there a tumour? ' * 20}\n{study}/001.png\n"
    (tmp_path / "list.csv").write_text("image\n" + lines)
    for source, stdin in ((tmp_path / "list.csv", None), ("-", lines)):
        output = tmp_path / f"{Path(source).stem}.csv"
        output = output.with_stem(f"answers{output.stem}")
        outcome = dragonfly("batch", source, "-q", "Is it?", "-m", TINY, "-o", output, stdin=stdin)
        assert outcome.code == 8
        assert [row["error_code"] for row in rows_of(output)] == ["", "4", ""]


def test_an_address_is_told_to_be_none_of_our_files(tmp_path: Path) -> None:
    table, ask = tmp_path / "answers.csv", ("-q", "Is it?", "-m", TINY, "-o")
    for address in ("https://h.org/a.svs", "https://h.org/?*.png", "s3://bucket/list.csv", "file:///data/a.png"):
        expect_error(dragonfly("batch", address, *ask, table), 4, address, "downloads no images")
    (tmp_path / "list.csv").write_text("image\nhttps://h.org/a.svs\n")
    for source, stdin in ((tmp_path / "list.csv", None), ("-", "https://h.org/a.svs\n")):
        assert dragonfly("batch", source, *ask, table, stdin=stdin).code == 8
        (row,) = rows_of(table)
        assert row["image"] == "https://h.org/a.svs"
        assert row["error"] == "cannot read https://h.org/a.svs: dragonfly downloads no images"
        assert "1 of 1 images are done" in dragonfly("batch", source, *ask, table, stdin=stdin).stderr
        table.unlink()
    unasked = dragonfly("batch", tmp_path / "list.csv", "--type", "yesno", *ask[2:], table)
    expect_error(unasked, 2, "there is no question about https://h.org/a.svs: ")


def test_a_dry_run_tells_what_would_run_and_writes_nothing(study: Path, tmp_path: Path) -> None:
    outcome = dragonfly("batch", study, *QUESTIONS, "-o", tmp_path / "answers.csv", "--dry-run")
    assert outcome.code == 0
    lines = outcome.stdout.splitlines()
    assert lines[:4] == [
        "images: 6, of which done: 0",
        "cannot be read: 1",
        "rows to write: 12",
        "fields to look at: 7",
    ]
    assert lines[4].startswith("time: about ")
    assert lines[5].startswith("memory: ")
    assert "error: " in outcome.stderr and "001-broken.svs" in outcome.stderr
    assert [path.name for path in tmp_path.iterdir()] == ["study"]


def test_a_dry_run_counts_the_fields_that_the_chosen_model_will_look_at(tmp_path: Path) -> None:
    slide = write_svs(tmp_path / "slide.svs", (1500, 1000))
    call = ("batch", slide, "-q", "Is it?", "--budget", "2", "-o", tmp_path / "a.csv")
    for model, fields in ((TINY, 1), ("demo", 2)):
        assert f"fields to look at: {fields}\n" in dragonfly(*call, "-m", model, "--dry-run").stdout
    assert dragonfly(*call, "-m", "demo").code == 0
    assert rows_of(tmp_path / "a.csv")[0]["fields"] == "2"


def test_zips_in_a_folder_count_if_they_hold_dicom_or_cannot_be_looked_into(study: Path, tmp_path: Path) -> None:
    folder = tmp_path / "zips"
    folder.mkdir()
    contents = {
        "film.zip": {"film.dcm": (study / "film.dcm").read_bytes()},
        "notes.zip": {"notes.txt": b"of no use here", "a.png": (study / "000.png").read_bytes()},
        "within.zip": {"film.zip": b"another zip", "notes.txt": b"of no use here"},
        "two.zip": {f"{uid}/{number}": slice_of(tmp_path, uid, number) for uid in ("1.2", "1.3") for number in (1, 2)},
    }
    for name, members in contents.items():
        write_zip(folder / name, members)
    (folder / "torn.zip").write_bytes((folder / "film.zip").read_bytes()[:-30])
    assert dragonfly("batch", folder, "-q", "Is it?", "-m", TINY, "-o", tmp_path / "a.csv").code == 8
    rows = [(row["image"].removeprefix(f"{folder}/"), row["error_code"]) for row in rows_of(tmp_path / "a.csv")]
    assert rows == [("film.zip", ""), ("torn.zip", "4"), ("two.zip#1", ""), ("two.zip#2", ""), ("within.zip", "4")]


def test_what_lies_unpacked_beside_its_zip_is_asked_about_once(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """By what the files are, not by their names: copies elsewhere count, other versions of them do not."""
    unpacked = tmp_path / "studies" / "b"
    unpacked.mkdir(parents=True)
    members = {f"{number}": slice_of(tmp_path, "1.2", number) for number in (1, 2)}
    for name, content in members.items():
        (unpacked / f"IM{name}.dcm").write_bytes(content)
    (tmp_path / "studies" / "film.dcm").write_bytes(slice_of(tmp_path, "1.3", 7))
    write_zip(tmp_path / "studies" / "a.zip", members)
    write_zip(tmp_path / "studies" / "film.zip", {"deep/er/film": (tmp_path / "studies" / "film.dcm").read_bytes()})
    write_zip(tmp_path / "studies" / "b.zip", members | {"3": slice_of(tmp_path, "1.2", 3)})
    write_zip(tmp_path / "studies" / "changed.zip", {"1": members["1"] + bytes(2), "2": members["2"]})

    for sources in ([tmp_path / "studies"], [tmp_path / "studies" / "*"]):
        assert names(found(*sources)) == ["b", "b.zip", "changed.zip", "film.dcm"]
        told = capsys.readouterr().err
        assert told.startswith("note: ") and told.count("\n") == 1
        assert "a.zip, " in told and "film.zip" in told and "once" in told
        assert "b.zip" not in told and "1.2" not in told and "SECRET" not in told
    (tmp_path / "list.csv").write_text("image\nstudies/a.zip\nstudies/b\n")  # somebody wants both
    assert names(found(tmp_path / "list.csv")) == ["a.zip", "b"]


def test_films_of_several_patients_are_no_series(tmp_path: Path) -> None:
    """Some programs that remove names give all films one series UID, others remove the UIDs."""
    for folder, uid in (("one-uid", {"SeriesInstanceUID": "1.2"}), ("no-uid", {})):
        (tmp_path / folder).mkdir()
        for number in range(4):
            about = uid | {"PatientID": f"P{number}" if uid else "", "InstanceNumber": number, "Modality": "CR"}
            write_dicom(tmp_path / folder / f"{number}.dcm", np.full((20, 20), number, np.uint8), **about)
        assert names(found(tmp_path / folder)) == [f"{number}.dcm" for number in range(4)]
    for number, patient in enumerate(("", "P1", " P1 ", "P1")):  # what is not said contradicts nothing
        about = {"SeriesInstanceUID": "1.2", "PatientID": patient, "StudyInstanceUID": f"1.2.{number}"}
        about |= {"ImagePositionPatient": [0, 0, number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        write_dicom(tmp_path / "one-uid" / f"{number}.dcm", np.full((20, 20), number, np.uint8), **about)
    assert names(found(tmp_path / "one-uid")) == ["one-uid"]
    for number in range(4):  # slices that lie in space are one series without a UID, too
        about = {"ImagePositionPatient": [0, 0, number], "ImageOrientationPatient": [1, 0, 0, 0, 1, 0]}
        write_dicom(tmp_path / "no-uid" / f"{number}.dcm", np.full((20, 20), number, np.uint8), **about)
    assert names(found(tmp_path / "no-uid")) == ["no-uid"]


def write_zip(path: Path, members: dict[str, bytes]) -> None:
    with zipfile.ZipFile(path, "w") as archive:
        for member, content in members.items():
            archive.writestr(member, content)


def slice_of(folder: Path, uid: str, number: int) -> bytes:
    pixels = np.full((20, 20), 10 * number, np.uint8)
    place = {"SeriesInstanceUID": uid, "ImagePositionPatient": [0, 0, number], "InstanceNumber": number}
    place["SOPInstanceUID"] = f"{uid}.{number}"
    return write_dicom(folder / "slice", pixels, **place, ImageOrientationPatient=[1, 0, 0, 0, 1, 0]).read_bytes()


@pytest.mark.parametrize("form", [("--options", "red,blue"), ("--scale", "1-5"), ("--type", "yesno")])
def test_a_form_is_not_dropped_where_there_is_no_question_to_have_it(
    study: Path, tmp_path: Path, form: tuple[str, str]
) -> None:
    """A description, which is free, would stand in the table where answers to choose from were wanted."""
    call = ("batch", study, "-m", TINY, "-o", tmp_path / "answers.csv")
    expect_error(dragonfly(*call, *form), 2, "there is no question about", "000.png", form[0])
    assert dragonfly(*call, "--type", "open", "--dry-run").code == 0
    assert not (tmp_path / "answers.csv").exists()


def test_a_table_may_be_parquet(study: Path, tmp_path: Path) -> None:
    parquet = pytest.importorskip("pyarrow.parquet")
    call = ("batch", study, *QUESTIONS, "-o", tmp_path / "answers.parquet")
    outcome = dragonfly(*call, "--limit", "2")
    assert outcome.code == 8
    assert outcome.stderr.endswith(f"answers are in {tmp_path / 'answers.parquet'}\n")
    rows = parquet.read_table(tmp_path / "answers.parquet").to_pylist()
    assert [row["status"] for row in rows] == ["ok", "ok", "failed", "failed"]
    assert 0 < rows[0]["p_yes"] < 1
    assert rows[2]["error_code"] == 4 and rows[2]["p_yes"] is None
    assert [row["image"] for row in rows] == [row["image"] for row in rows_of(tmp_path / "answers.csv")]


def test_outputs_that_cannot_be_are_refused(study: Path, tmp_path: Path) -> None:
    expect_error(dragonfly("batch", study, "-o", "-"), 2, "--output -")
    csv = tmp_path / "a.csv"
    expect_error(dragonfly("batch", study, "-o", csv, "-f", "parquet"), 2, "a.csv")
    for records in (csv, os.path.relpath(csv)):
        expect_error(dragonfly("batch", study, "-o", csv, "--records", records), 2, "a.csv")
    for name in ("failed.csv", "run.json"):  # which a run writes itself
        expect_error(dragonfly("batch", study, "-o", tmp_path / name), 2, name)
    for name in ("a.csv.gz", "a.xlsx", "a.json", "a.tsv"):  # somebody would open them as that
        expect_error(dragonfly("batch", study, "-o", tmp_path / name), 2, name, "CSV, JSON lines or Parquet")
    expect_error(dragonfly("batch", study, "-o", csv, "--address", "auto"), 2, "--address")
    expect_error(dragonfly("batch", study, "-o", csv, "--slide-mpp", "0"), 2, "--slide-mpp 0")
    expect_error(dragonfly("batch", study, "-o", csv, "--records", tmp_path / "no" / "a.jsonl"), 7, "a.jsonl")
    os.mkfifo(tmp_path / "pipe")
    for pipe in (("-o", tmp_path / "pipe"), ("-o", csv, "--records", tmp_path / "pipe")):
        expect_error(dragonfly("batch", study, *pipe), 7, "pipe or a device")
    expect_error(dragonfly("ask", study / "000.png", "Is it?", "-o", tmp_path / "pipe"), 7, "pipe or a device")
    (tmp_path / "pipe").unlink()  # which a file would have replaced
    assert [path.name for path in tmp_path.iterdir()] == ["study"]
