"""What of a slide is taken for tissue: neither glass nor ink, dust, nor what was not scanned."""

import math
from io import BytesIO

import numpy as np
import pytest
from make_files import tissue_like, write_svs
from PIL import Image
from slide_plans import CANVAS_WH, GLASS, PINK, painted, tissue_of

from dragonfly_cli.fields import plan_looks
from dragonfly_cli.fields.tissue import find_tissue
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import open_source


def test_tissue_is_found_and_dust_and_holes_are_judged_by_their_area():
    pixels = painted((100, 50, 300, 250))
    pixels[140:150, 190:200] = GLASS  # a hole of 10,000 square microns: filled
    pixels[10:15, 10:15] = PINK  # dust of 2,500 square microns: dropped
    tissue = tissue_of(pixels)
    assert tissue.found
    assert tissue.bounds == Box(1000, 500, 2000, 2000)
    assert tissue.share(Box(1000, 500, 2000, 2000)) == pytest.approx(1)
    assert tissue.share(Box(0, 0, 900, 3000)) == 0
    assert tissue.share(Box(0, 500, 2000, 2000)) == pytest.approx(0.5)


def test_a_large_hole_stays_a_hole():
    pixels = painted((100, 50, 300, 250))
    pixels[120:180, 170:230] = GLASS  # 360,000 square microns
    assert tissue_of(pixels).share(Box(1750, 1250, 500, 500)) == 0


@pytest.mark.parametrize("noise", [0, 6])
def test_glass_alone_falls_back_to_everything(noise):
    pixels = painted()
    pixels = (pixels + np.random.default_rng(0).integers(-noise, noise + 1, pixels.shape)).clip(0, 255).astype(np.uint8)
    tissue = tissue_of(pixels)
    assert not tissue.found and tissue.bounds == Box(0, 0, 4000, 3000)


def test_a_slide_full_of_tissue_is_not_split():
    rng = np.random.default_rng(0)
    dark, pale = np.array([150, 70, 150]), np.array([225, 170, 205])
    pixels = np.where(rng.random((300, 400, 1)) < 0.5, dark, pale).astype(np.uint8)
    assert tissue_of(pixels).mask.mean() > 0.99


@pytest.mark.parametrize("glass", [GLASS, (240, 236, 224)], ids=["clear", "yellow"])
def test_pale_tissue_beside_strongly_stained_tissue_is_tissue_too(glass):
    """What one piece is stained like says nothing of another; glass and soft edges are none."""
    rng = np.random.default_rng(0)
    pixels = np.full((300, 400, 3), glass, float)
    pixels[50:250, 30:180] = (120, 50, 140)
    pixels[50:250, 180:184] = (210, 180, 215)  # thin
    pixels[50:250, 230:380] = np.array(glass) - (20, 32, 14)
    pixels += rng.normal(0, 2, (300, 400, 1))
    tissue = tissue_of(as_jpeg(pixels.clip(0, 255).astype(np.uint8)))
    assert tissue.share(Box(2350, 550, 1400, 1900)) > 0.95
    assert tissue.share(Box(1900, 0, 350, 3000)) < 0.02
    assert tissue.share(Box(0, 0, 4000, 450)) == 0


@pytest.mark.parametrize("ink", [(20, 140, 60), (30, 90, 200), (15, 15, 15)])
def test_ink_is_left_out_and_reported(tmp_path, ink):
    pixels = painted((100, 50, 300, 250))
    pixels[260:280, 50:350] = ink
    source = open_source(write_svs(tmp_path / "a.svs", pixels=pixels.repeat(4, 0).repeat(4, 1)))
    plan_looks(source, LookOptions(), CANVAS_WH)
    assert any("pen marks were left out of the search" in warning for warning in source.warnings)
    tissue = tissue_of(pixels)
    assert tissue.ink_share > 0.05
    assert tissue.bounds == Box(1000, 500, 2000, 2000)


def test_dark_nuclei_are_not_ink():
    pixels = painted((100, 50, 300, 250))
    pixels[60:240:6, 110:290:6] = (40, 20, 55)  # 100 square microns each
    tissue = tissue_of(pixels)
    assert tissue.ink_share == 0 and tissue.mask[50:250, 100:300].all()


def as_jpeg(pixels):
    """Twice the size in JPEG and back, as a thumbnail of a slide is made."""
    image = Image.fromarray(pixels).resize((2 * pixels.shape[1], 2 * pixels.shape[0]))
    packed = BytesIO()
    image.save(packed, format="JPEG", quality=75)
    return np.asarray(Image.open(packed).resize((pixels.shape[1], pixels.shape[0])))


def under_light(pixels, level):
    """As under a lamp that makes white glass ``level``, brighter on the right; with the noise of a camera."""
    light = level / GLASS[0] * np.linspace(0.93, 1.07, pixels.shape[1])[:, None]
    noise = np.random.default_rng(0).normal(0, 2, (*pixels.shape[:2], 1))
    return (pixels * light + noise).clip(0, 255).astype(np.uint8)


PIECE = Box(1000, 500, 2000, 2000)


def shows_piece_alone(tissue, filling=1.0):
    edges = np.subtract(tissue.bounds.corners, PIECE.corners)
    return tissue.found and np.abs(edges).max() <= 30 and tissue.share(PIECE) == pytest.approx(filling, abs=0.03)


@pytest.mark.parametrize("level", [220, 200, 180, 150])
def test_dim_glass_is_no_tissue(level):
    assert shows_piece_alone(tissue_of(as_jpeg(under_light(painted((100, 50, 300, 250)), level))))
    assert not tissue_of(as_jpeg(under_light(painted(), level))).found


@pytest.mark.parametrize("colour", [(20, 60, 200), (15, 170, 30), (120, 120, 120)])
@pytest.mark.parametrize("ground", [0, 8, 45])
def test_on_a_dark_ground_tissue_is_what_shines(colour, ground):
    y, x = np.mgrid[0:300, 0:400]
    disc = np.hypot(x - 200, y - 150) < 100
    noise = np.random.default_rng(0).normal(0, 3 if ground else 0, (300, 400, 1))
    shining = disc[..., None] * np.array(colour) + ground + noise
    assert shows_piece_alone(tissue_of(as_jpeg(shining.clip(0, 255).astype(np.uint8))), filling=math.pi / 4)


@pytest.mark.parametrize(("level", "noise"), [(20, 12), (40, 20)])
def test_overexposed_specimen_on_a_noisy_dark_ground_is_no_glass(level, noise):
    """Nothing but the overexposed is smooth there; taken for glass, the search would look at all but the specimen."""
    rng = np.random.default_rng(0)
    pixels = np.clip(rng.normal(level, noise, (300, 400, 1)), 0, 255).astype(np.uint8).repeat(3, -1)
    pixels[50:250, 100:300] = 255
    assert shows_piece_alone(tissue_of(pixels))


def test_a_slide_without_colours_is_told(tmp_path):
    """White may be glass or, in fluorescence, specimen: nothing in the file says which."""
    stained = tissue_like((800, 600))
    grey = stained.min(axis=-1, keepdims=True).repeat(3, axis=-1)
    told = []
    for name, each in (("a.svs", grey), ("b.svs", 255 - grey), ("c.svs", stained)):
        source = open_source(write_svs(tmp_path / name, pixels=each))
        find_tissue(source)
        told.append(" ".join(source.warnings))
    assert ["no colours" in text for text in told] == [True, False, False] and "dark" in told[1]


@pytest.mark.parametrize("level", [0, 90, 140, 255])
@pytest.mark.parametrize("glass", [244, 190])
def test_what_a_scanner_filled_in_is_no_tissue_nor_ink(level, glass):
    seen = under_light(painted((70, 20, 270, 220), size=(250, 350)), glass)
    filled = np.full((300, 400, 3), level, np.uint8)
    filled[30:280, 30:380] = seen
    tissue = tissue_of(as_jpeg(filled))
    assert shows_piece_alone(tissue) and tissue.ink_share == 0
    filled[30:280, 30:380] = under_light(painted(size=(250, 350)), glass)
    blank = tissue_of(as_jpeg(filled))
    assert not blank.found
    if level < 222:  # a lack of tissue is no reason to search what was not scanned
        assert np.abs(np.subtract(blank.bounds.corners, (300, 300, 3800, 2800))).max() <= 60


def test_a_scan_full_of_tissue_in_black_is_all_searched():
    full = np.random.default_rng(0).normal(0, 12, (300, 400, 1)) + PINK
    full[:40], full[:, 300:] = 0, 0
    tissue = tissue_of(as_jpeg(full.clip(0, 255).astype(np.uint8)))
    assert tissue.found and np.abs(np.subtract(tissue.bounds.corners, (0, 400, 3000, 3000))).max() <= 60


def test_a_ground_that_is_not_white_and_what_was_not_scanned_are_told(tmp_path):
    pixels = under_light(tissue_like((2000, 1500)), 180)
    pixels[:, 1700:] = 0
    source = open_source(write_svs(tmp_path / "a.svs", pixels=pixels))
    planned = plan_looks(source, LookOptions(budget=30), CANVAS_WH)
    assert not any(field.box.x > 1700 for field in planned.fields)
    assert any(line.startswith("15% of the slide is one even grey") for line in source.warnings)
    assert any(line.startswith("the background is grey (") for line in source.warnings)
