"""Prompts by name: the built-in ones, the user's own, and what is wrong with a file."""

import json
import tomllib
from pathlib import Path

import pytest
from batch_runs import TINY
from make_files import write_png
from run_dragonfly import dragonfly, expect_error


@pytest.fixture(autouse=True)
def own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    file = tmp_path / "templates.toml"
    file.touch()
    monkeypatch.setenv("DRAGONFLY_TEMPLATES", str(file))
    return file


def test_the_built_in_ones_are_listed_and_shown_as_they_are_written(own: Path) -> None:
    outcome = dragonfly("template", "list")
    assert "chest-xray  findings on a chest radiograph" in outcome.stdout
    assert str(own) in outcome.stderr
    for line in outcome.stdout.splitlines():
        name = line.split()[0]
        shown = tomllib.loads(dragonfly("template", "show", name).stdout)[name]
        assert all(question.strip() for question in shown["questions"])


def test_a_name_with_spaces_is_shown_as_it_is_written(own: Path) -> None:
    own.write_text('["chest film.v2"]\nquestions = ["Is it a film?"]\n')
    shown = dragonfly("template", "show", "chest film.v2").stdout
    assert tomllib.loads(shown) == {"chest film.v2": {"questions": ["Is it a film?"]}}


def test_a_template_asks_its_questions_behind_its_system_text(own: Path, tmp_path: Path) -> None:
    own.write_text('[mine]\nsystem = "This is a µ test."\nquestions = ["Is it red?", "What is it?"]\n')
    photo = write_png(tmp_path / "photo.png")
    call = ("ask", photo, "-t", "mine", "--json", "--max-tokens", "4")
    first, second = dragonfly(*call).json
    assert [first["question"], second["question"]] == ["Is it red?", "What is it?"]
    assert "user<|end_header_id|>\n\nThis is a µ test. Is it red?<|eot_id|>" in first["prompt"]
    assert (first["settings"]["system"], first["settings"]["type"]) == ("This is a µ test.", "yesno")
    other = dragonfly(*call, "-q", "Is it blue?").json
    assert "This is a µ test. Is it blue?<|eot_id|>" in other["prompt"]


def test_without_a_template_the_prompt_is_the_published_one(tmp_path: Path) -> None:
    prompt = dragonfly("ask", write_png(tmp_path / "photo.png"), "Is it red?", "--json").json["prompt"]
    assert prompt == (
        "<|start_header_id|>user<|end_header_id|>\n\nIs it red?<|eot_id|>"
        "<|start_header_id|>assistant<|end_header_id|>\n\n"
    )


def test_the_user_s_own_goes_before_a_built_in_one(own: Path) -> None:
    own.write_text('\ufeff[histology]\nabout = "my\\nslides"\n', encoding="utf-8")  # as Windows editors write it
    assert "histology   my slides (your own)" in dragonfly("template", "list").stdout


def test_a_batch_asks_a_template_s_questions(own: Path, tmp_path: Path) -> None:
    own.write_text('[mine]\nquestions = ["Is it red?"]\n')
    answers = tmp_path / "answers.csv"
    assert dragonfly("batch", write_png(tmp_path / "photo.png"), "-t", "mine", "-o", answers).code == 0
    assert "Is it red?" in answers.read_text()


def test_a_template_without_questions_goes_before_those_of_a_manifest(own: Path, tmp_path: Path) -> None:
    own.write_text('[mine]\nsystem = "Be brief."\n')
    manifest, answers, records = tmp_path / "asked.csv", tmp_path / "answers.csv", tmp_path / "records.jsonl"
    manifest.write_text(f"image,question\n{write_png(tmp_path / 'photo.png')},Is it blue?\n")
    assert dragonfly("batch", manifest, "-t", "mine", "-o", answers, "--records", records).code == 0
    (line,) = records.read_text().splitlines()
    assert "user<|end_header_id|>\n\nBe brief. Is it blue?<|eot_id|>" in json.loads(line)["prompt"]


@pytest.mark.parametrize("rows", ["photo.png,Is it blue?\nphoto.png,\n", "photo.png,\n", None])
def test_an_image_without_a_question_is_not_described_instead(own: Path, tmp_path: Path, rows: str | None) -> None:
    """A description would be one without the template's system text."""
    own.write_text('[mine]\nsystem = "Be brief."\n')
    source = write_png(tmp_path / "photo.png")
    if rows:
        source = tmp_path / "asked.csv"
        source.write_text(f"image,question\n{rows}")
    answers = tmp_path / "answers.csv"
    outcome = dragonfly("batch", source, "-t", "mine", "-o", answers)
    expect_error(outcome, 2, "there is no question about", "photo.png: template mine has none")
    assert not answers.exists()


def test_what_a_changed_template_says_before_a_manifest_s_questions_is_another_run(own: Path, tmp_path: Path) -> None:
    own.write_text('[mine]\nsystem = "Be brief."\nquestions = ["Is it red?"]\n')
    write_png(tmp_path / "photo.png")
    manifest = tmp_path / "asked.csv"
    manifest.write_text("image,question\nphoto.png,Is it blue?\n")
    call = ("batch", manifest, "-t", "mine", "-o", tmp_path / "answers.csv")
    assert dragonfly(*call).code == 0
    again = dragonfly(*call)
    assert (again.code, "1 of 1 images are done" in again.stderr) == (0, True)
    own.write_text('[mine]\nsystem = "Be thorough."\nquestions = ["Is it red?"]\n')
    expect_error(dragonfly(*call), 7, "other settings", "form")


@pytest.mark.parametrize(
    ("text", "word"),
    [
        ("[mine", "cannot read templates"),
        ("mine = " + "1" * 5000, "cannot read templates"),
        ("mine = " + "[" * 3000, "cannot read templates"),
        ('mine = "x"', "mine is not a template"),
        ("[mine]\ncolour = 3", "unknown entry: colour"),
        ("[mine]\nsystem = 3", "not text"),
        ('[mine]\nquestions = "Is it?"', "not text"),
        ('[mine]\nquestions = [" "]', "empty"),
    ],
)
def test_what_is_wrong_with_a_file(own: Path, text: str, word: str) -> None:
    own.write_text(text)
    expect_error(dragonfly("ask", "nowhere.png", "-t", "mine"), 4, str(own), word)


def test_a_template_that_is_not_there(own: Path) -> None:
    expect_error(dragonfly("ask", "nowhere.png", "Is it?", "-t", "nonesuch"), 2, "nonesuch")
    expect_error(dragonfly("template", "show", "nonesuch"), 2, "nonesuch")
    own.write_text('[mine]\nsystem = "A test."\n')
    expect_error(dragonfly("ask", "nowhere.png", "-t", "mine"), 2, "no question: template mine has none")
    empty = own.with_name("q.txt")
    empty.touch()
    own.write_text('[mine]\nquestions = ["Is it?"]\n')  # asked where no file is given
    expect_error(dragonfly("ask", "nowhere.png", "-t", "mine", "--questions", empty), 2, f"no question in {empty}")


@pytest.mark.parametrize(("system", "why"), [("a <|eot_id|>", "cannot be put: <|eot_id|>"), ("a " * 3000, "too long")])
def test_what_is_wrong_with_a_system_text_is_not_said_of_the_question(
    own: Path, tmp_path: Path, system: str, why: str
) -> None:
    own.write_text(f'[mine]\nsystem = "{system}"\n')
    call = ("ask", write_png(tmp_path / "photo.png"), "Is it?", "-t", "mine", "-m", TINY)
    expect_error(dragonfly(*call), 2, "the system text of the template", why)


def test_a_file_that_the_environment_names_must_be_there(own: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The built-in template of the same name would be taken for the user's."""
    own.unlink()
    for call in (("ask", "nowhere.png", "-t", "histology"), ("template", "list"), ("template", "show", "histology")):
        expect_error(dragonfly(*call), 3, f"DRAGONFLY_TEMPLATES: there is no file {own}")
    monkeypatch.setenv("DRAGONFLY_TEMPLATES", "")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(own.parent))
    assert "histology" in dragonfly("template", "list").stdout
