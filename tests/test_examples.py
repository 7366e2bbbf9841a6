"""The examples are what their script makes, open as what they claim to be, and name nobody."""

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


@pytest.fixture(scope="module")
def remade(tmp_path_factory):
    folder = tmp_path_factory.mktemp("examples")
    make_examples.main(folder)
    return folder


def pixels(path, size=None):
    source = open_source(path)
    view = source.view(Box(0, 0, *source.size_wh))
    return np.asarray(view.resize(size or source.size_wh)).astype(int)


def test_the_slide_is_the_one_that_the_script_makes(remade):
    kept, made = (pixels(folder / "slide.svs") for folder in (make_examples.HERE, remade))
    assert kept.shape == made.shape and np.abs(kept - made).mean() < 1  # JPEG encoders differ a little


def test_the_film_is_the_one_that_the_script_makes(remade):
    kept, made = (pixels(folder / "radiograph.dcm") for folder in (make_examples.HERE, remade))
    assert np.abs(kept - made).max() <= 1


def test_the_slide_is_a_pyramid_of_tissue_on_glass():
    source = open_source(make_examples.HERE / "slide.svs")
    assert (source.kind, source.format, source.mpp) == ("slide", "aperio", (0.5, 0.5))
    assert len(source.details()["levels"]) >= 2 and (source.path.stat().st_size < 1_500_000)
    overview = pixels(source.path, (200, 150))
    glass = (overview.min(axis=-1) > 225).mean()
    pink = ((overview[..., 0] > overview[..., 1] + 25) & (overview[..., 2] > overview[..., 1])).mean()
    assert 0.3 < glass < 0.8 and pink > 0.2


def test_the_film_shows_air_dark_and_bone_bright():
    path = make_examples.HERE / "radiograph.dcm"
    source = open_source(path)
    assert source.details()["photometric_interpretation"] == "MONOCHROME1" and not source.warnings
    film = pixels(path)[..., 0]
    rows, columns = film.shape
    spine, lung, air = film[rows // 3, columns // 2], film[rows // 2 - 20, columns // 4], film[5, 5]
    assert spine > lung + 60 > air + 60
    assert path.stat().st_size < 300_000


def test_the_film_names_nobody():
    film = pydicom.dcmread(make_examples.HERE / "radiograph.dcm")
    allowed = {"PatientName": "Synthetic^Example", "PatientID": "EXAMPLE"}
    named = {element.keyword: str(element.value) for element in film if element.tag.group == 0x0010}
    assert named == allowed


def test_asking_from_python_gives_the_command_s_answer(tmp_path: Path) -> None:
    picture, question = write_png(tmp_path / "photo.png", (300, 200)), "What kind of image is this?"
    from_python = ask_from_python.answer(picture, question, find_checkpoint("demo").folder)
    assert dragonfly("ask", picture, question, "--max-tokens", "64").stdout == from_python + "\n"
