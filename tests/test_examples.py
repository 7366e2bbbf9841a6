"""The examples are what their script makes, open as what they claim to be, and name nobody."""

import csv
import json
from pathlib import Path

import numpy as np
import pydicom
import pytest
from make_files import write_png
from run_dragonfly import dragonfly

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import open_source
from examples import ask_from_python, make_examples

EXAMPLES = make_examples.HERE
SLICES = sorted((EXAMPLES / "series").glob("*.dcm"))
FILES = [*(EXAMPLES / name for name in (*make_examples.SLIDES, "radiograph.dcm")), *SLICES]


def pixels(path, size=None):
    source = open_source(path)
    view = source.view(Box(0, 0, *source.size_wh))
    return np.asarray(view.resize(size or source.size_wh)).astype(int)


def test_the_readme_shows_the_answers_that_the_built_in_model_gives(tmp_path):
    readme = (EXAMPLES.parent / "README.md").read_text("utf-8")
    shown = [line.split(",")[2:5] for line in readme.splitlines() if line.startswith("study/") and ",ok," in line]
    files = EXAMPLES / "radiograph.dcm", EXAMPLES / "slide.svs"
    assert dragonfly("batch", *files, "-q", "Is there a tumour?", "-o", tmp_path / "answers.csv").code == 0
    with (tmp_path / "answers.csv").open(newline="") as table:
        given = [[row["answer"], row["p_yes"], row["p_no"]] for row in csv.DictReader(table)]
    assert [answer for answer, *_ in shown] == [answer for answer, *_ in given] and len(shown) == 2
    for (_, *told), (_, *found) in zip(shown, given, strict=True):
        assert list(map(float, told)) == pytest.approx(list(map(float, found)), abs=1e-3)


@pytest.mark.slow
def test_the_slide_with_foci_is_the_one_that_the_script_makes(tmp_path):
    name = "slide_necrosis.svs"
    make_examples.write_slide(tmp_path / name, *make_examples.SLIDES[name])
    kept, made = (pixels(folder / name, (1024, 768)) for folder in (EXAMPLES, tmp_path))
    assert np.abs(kept - made).mean() < 1  # JPEG encoders differ a little
    make_examples.write_places(tmp_path / "places.json", make_examples.FOCI)
    assert (EXAMPLES / "slide_necrosis.json").read_text() == (tmp_path / "places.json").read_text()


def test_the_film_and_the_series_are_those_that_the_script_makes(tmp_path):
    make_examples.write_film(tmp_path / "radiograph.dcm")
    make_examples.write_series(tmp_path / "series")
    for kept in FILES[2:]:
        assert np.abs(pixels(kept) - pixels(tmp_path / kept.relative_to(EXAMPLES))).max() <= 1


def test_the_examples_are_small():
    assert sum(path.stat().st_size for path in FILES) < 6_000_000
    assert len(SLICES) == 12


@pytest.mark.parametrize("name", make_examples.SLIDES)
def test_a_slide_is_a_pyramid_of_tissue_on_glass(name):
    facts = dragonfly("info", EXAMPLES / name, "--json").json
    assert (facts["kind"], facts["format"], facts["mpp"]) == ("slide", "aperio", [0.5, 0.5])
    assert [level["width"] for level in facts["levels"]] == [4096, 1024, 256]
    overview = pixels(EXAMPLES / name, (400, 300))
    is_glass = np.ptp(overview, axis=-1) < 20
    is_pink = (overview[..., 0] > overview[..., 1] + 25) & (overview[..., 2] > overview[..., 1])
    assert 0.3 < is_glass.mean() < 0.8
    assert is_pink.mean() > 0.2
    assert is_glass[:4].all() and is_glass[-4:].all() and is_glass[:, :4].all() and is_glass[:, -4:].all()


@pytest.mark.parametrize("kind", ["tumour", "necrosis"])
def test_a_focus_is_where_the_places_say(kind):
    """There are many more dark pixels, of nuclei, in tumour than in healthy tissue, and many fewer in necrosis."""
    places = json.loads((EXAMPLES / "slide_necrosis.json").read_text())
    (box,) = (Box(*place["box"]) for place in places if place["kind"] == kind)
    source = open_source(EXAMPLES / "slide_necrosis.svs")
    inner = Box(box.x + box.width // 5, box.y + box.height // 5, box.width * 3 // 5, box.height * 3 // 5)
    inside = np.asarray(source.view(inner).resize((300, 300))).astype(int)
    healthy = np.asarray(source.view(Box(1600, 2000, 800, 500)).resize((400, 250))).astype(int)
    shares = [(picture[..., 0] < 130).mean() for picture in (inside, healthy)]
    if kind == "tumour":
        assert shares[0] > 2 * shares[1]
    else:
        assert shares[0] < 0.5 * shares[1]


@pytest.mark.parametrize("path", [*FILES[:3], SLICES[5]], ids=lambda path: path.name)
def test_every_kind_of_example_can_be_viewed(path, tmp_path):
    assert dragonfly("view", path, "-o", tmp_path / "seen.png").code == 0


def test_the_film_shows_air_dark_and_bone_bright():
    path = EXAMPLES / "radiograph.dcm"
    source = open_source(path)
    assert source.details()["photometric_interpretation"] == "MONOCHROME1" and not source.warnings
    film = pixels(path)[..., 0]
    rows, columns = film.shape
    spine, lung, air = film[rows // 3, columns // 2], film[rows // 2 - 20, columns // 4], film[5, 5]
    assert spine > lung + 60 > air + 60


def test_a_slice_of_the_series_shows_lungs_dark_and_bone_bright():
    path = SLICES[5]
    assert not open_source(path).warnings
    shown = pixels(path)[..., 0]
    lung, muscle, spine = shown[64, 40], shown[64, 64], shown[83, 64]
    assert lung == 0 and 100 < muscle < 160 and spine > 170


def test_the_series_is_one_and_lies_in_order():
    headers = [pydicom.dcmread(path, stop_before_pixels=True) for path in SLICES]
    assert len({header.SeriesInstanceUID for header in headers}) == 1
    assert len({header.SOPInstanceUID for header in headers}) == len(headers)
    assert [header.InstanceNumber for header in headers] == list(range(1, len(headers) + 1))
    heights = [header.ImagePositionPatient[2] for header in headers]
    assert set(np.diff(heights)) == {-headers[0].SliceThickness}


@pytest.mark.parametrize("path", FILES[2:], ids=lambda path: path.name)
def test_a_dicom_example_names_nobody(path):
    dataset = pydicom.dcmread(path)
    allowed = {"PatientName": "Synthetic^Example", "PatientID": "EXAMPLE"}
    named = {element.keyword: str(element.value) for element in dataset if element.tag.group == 0x0010}
    assert named == allowed
    instance_uids = [str(element.value) for element in dataset if element.keyword.endswith("InstanceUID")]
    assert len(instance_uids) == 3
    assert all(uid.startswith(make_examples.UID_ROOT) for uid in instance_uids)


def test_asking_from_python_gives_the_command_s_answer(tmp_path: Path) -> None:
    picture, question = write_png(tmp_path / "photo.png", (300, 200)), "What kind of image is this?"
    from_python = ask_from_python.answer(picture, question, find_checkpoint("demo").folder)
    assert dragonfly("ask", picture, question, "--max-tokens", "64").stdout == from_python + "\n"
