"""Where of a slide is looked: its overview, fields at the scale that was asked for, and regions."""

from itertools import pairwise
from pathlib import Path

import numpy as np
import pytest
import tifffile
from make_files import tissue_like, write_png, write_svs
from PIL import Image
from run_dragonfly import dragonfly, expect_error
from slide_plans import CANVAS_WH, plan

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import field_mpp, plan_looks
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import open_source


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    """4000 x 3000 px at 0.5 microns per pixel, tissue in the middle."""
    return write_svs(tmp_path_factory.mktemp("slides") / "slide.svs", (4000, 3000))


@pytest.mark.parametrize(("size_wh", "is_told"), [((9000, 300), True), ((300, 9000), True), ((4000, 300), False)])
def test_a_strip_that_is_squeezed_beyond_recognition_says_so(tmp_path: Path, size_wh, is_told: bool) -> None:
    for path in (write_svs(tmp_path / "a.svs", size_wh), write_png(tmp_path / "a.png", size_wh)):
        source = open_source(path)
        plan_looks(source, LookOptions(), CANVAS_WH)
        told = [warning for warning in source.warnings if "times as long as wide, and is squeezed" in warning]
        assert len(told) == is_told


@pytest.mark.parametrize(("mpp", "is_told"), [(2.0, True), (1.0, False)])
def test_a_slide_without_the_detail_that_is_looked_for_says_so(tmp_path: Path, mpp: float, is_told: bool) -> None:
    source = open_source(write_svs(tmp_path / "a.svs", (1000, 800), mpp=mpp))
    plan_looks(source, LookOptions(), CANVAS_WH)
    assert any("2 microns per pixel at its finest" in warning for warning in source.warnings) is is_told


def test_a_slide_is_an_overview_of_its_tissue_and_zoomed_in_fields(slide):
    planned = plan(slide)
    overview, *zooms = planned.fields
    assert overview.role == "overview" and abs(overview.box.x - 400) < 30 and abs(overview.box.width - 3200) < 60
    assert len(zooms) == 7 and {field.role for field in zooms} == {"zoom"}
    assert {field.box.size_wh for field in zooms} == {CANVAS_WH}  # 0.5 microns per pixel
    assert all(planned.tissue.share(field.box) >= 0.2 for field in zooms)
    assert len(plan(slide, budget=4).fields) == 4 and len(plan(slide, budget=1).fields) == 1


@pytest.mark.parametrize(
    ("looking", "size"), [({"mpp": 1.0}, (1344, 896)), ({"level": 1}, (2688, 1792)), ({"mpp": 0.1}, CANVAS_WH)]
)
def test_the_scale_that_was_asked_for_decides_the_size_of_a_field(slide, looking, size):
    assert {field.box.size_wh for field in plan(slide, **looking).fields if field.role == "zoom"} == {size}


def test_pixels_that_are_not_square_are_shown_in_their_true_shape(tmp_path):
    per_cm = {"resolution": (20_000, 10_000), "resolutionunit": "CENTIMETER"}  # 0.5 by 1 micron
    tifffile.imwrite(tmp_path / "a.tif", tissue_like((3000, 1500)), tile=(256, 256), photometric="rgb", **per_cm)
    source = open_source(tmp_path / "a.tif")
    assert source.mpp == (0.5, 1.0)
    fields = plan_looks(source, LookOptions(), CANVAS_WH).fields[1:]
    assert fields and {field.box.size_wh for field in fields} == {(2 * CANVAS_WH[0], CANVAS_WH[1])}
    assert {field_mpp(source, field, CANVAS_WH) for field in fields} == {1.0}


def test_a_field_of_pixels_that_are_not_square_is_seen_at_the_scale_it_is_told_at_and_round_things_round(tmp_path):
    pixels = np.full((1500, 4000, 3), (230, 150, 190), np.uint8)  # 0.25 by 1 micron
    y, x = np.mgrid[:1500, :4000]
    pixels[((x % 400 - 200) / 80) ** 2 + ((y % 100 - 50) / 20) ** 2 < 1] = (80, 30, 120)  # 40 microns across
    per_cm = {"resolution": (40_000, 10_000), "resolutionunit": "CENTIMETER"}
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, pixels, tile=(256, 256), photometric="rgb", **per_cm)
    record = dragonfly("ask", path, "Is it?", "--json").json
    assert {field["mpp"] for field in record["fields"] if field["role"] == "zoom"} == {1.0}
    dragonfly("view", path, "--what", "fields", "--region", "2000,300,400,300", "-o", tmp_path / "fields.png")
    with Image.open(tmp_path / "fields.png") as fields:
        assert fields.size == (683, 1024)  # 1000 by 1500 microns
        is_framed = (np.asarray(fields) == (0, 120, 255)).all(axis=-1)
    edges = np.flatnonzero(is_framed.any(axis=0))[[0, -1]] / 683, np.flatnonzero(is_framed.any(axis=1))[[0, -1]] / 1024
    assert np.ravel(edges) == pytest.approx([0.5, 0.6, 0.2, 0.4], abs=0.005)
    dragonfly("view", path, "--what", "display", "--region", "400,400,400,100", "-o", tmp_path / "seen.png")
    with Image.open(tmp_path / "seen.png") as seen:
        assert seen.size == (400, 400)
        is_dark = np.asarray(seen.convert("L")) < 120
    across, down = np.ptp(np.flatnonzero(is_dark.any(axis=0))), np.ptp(np.flatnonzero(is_dark.any(axis=1)))
    assert across == pytest.approx(160, abs=6) and down == pytest.approx(160, abs=6)


def test_a_slide_that_fits_one_field_is_one_field(tmp_path):
    path = write_svs(tmp_path / "small.svs", (600, 400), downsamples=())
    assert [(field.role, field.box) for field in plan(path).fields] == [("overview", Box(0, 0, 600, 400))]


@pytest.mark.parametrize("size_wh", [(700, 3000), (4000, 470)])
def test_of_a_slide_hardly_wider_than_a_field_no_place_is_looked_at_twice(tmp_path, size_wh):
    """Two fields side by side would both be moved onto it, and show nearly the same."""
    pixels = np.full((size_wh[1], size_wh[0], 3), (200, 110, 160), np.uint8)
    planned = plan(write_svs(tmp_path / "a.svs", pixels=pixels), budget=20)
    _, *zooms = planned.fields
    along = 1 if size_wh[0] < size_wh[1] else 0
    starts = sorted((field.box.x, field.box.y)[along] for field in zooms)
    side = zooms[0].box.size_wh[along]
    assert len(zooms) == -(-max(size_wh) // side)
    assert min(after - before for before, after in pairwise(starts)) > side / 2
    assert all(field.box.size_wh[1 - along] >= min(size_wh) for field in zooms)


def test_without_a_scale_fields_are_pixels_of_level_0(tmp_path):
    path = write_svs(tmp_path / "a.svs", (2000, 1500), mpp=None)
    assert plan(path).fields[1].box.size_wh == CANVAS_WH
    with pytest.raises(UsageError, match="microns per pixel"):
        plan(path, mpp=None, region=["0,0,500um,500um"])


def test_regions_in_pixels_microns_and_percent_are_the_same_box(slide):
    for region in ("1000,600,800,300", "500um,300um,400um,150µm", "25%,20%,20%,10%", "0.5mm, 600px,400 um ,10%"):
        (field,) = plan(slide, region=[region]).fields
        assert (field.role, field.box) == ("region", Box(1000, 600, 800, 300))


def test_the_only_frame_of_a_slide_is_looked_at_as_the_slide_is(slide):
    assert [field.box for field in plan(slide, frame=0).fields] == [field.box for field in plan(slide).fields]
    (field,) = plan(slide, frame=0, region=["1000,600,800,300"]).fields
    assert field.box == Box(1000, 600, 800, 300)


def test_a_centre_is_the_middle_of_its_field(slide):
    assert plan(slide, center="2000,1500").fields[0].box == Box(1664, 1276, 672, 448)
    assert plan(slide, center="50%,50%", fov="500um").fields[0].box == Box(1500, 1000, 1000, 1000)


@pytest.mark.parametrize("place", ["100,100", "101,101", "100.5,100"])
@pytest.mark.parametrize("side", [1, 2, 3])
def test_a_field_of_view_has_the_size_that_was_asked_for(tmp_path, place, side):
    write_png(tmp_path / "a.png", (640, 480))
    (field,) = plan(tmp_path / "a.png", center=place, fov=str(side)).fields
    assert field.box.size_wh == (side, side)


def test_a_region_with_a_scale_is_searched(slide):
    first, *zooms = plan(slide, region=["1000,500,2000,1500"], mpp=0.5).fields
    assert first.box == Box(1000, 500, 2000, 1500) and len(zooms) == 7
    assert all(field.box.meets(first.box) for field in zooms)


def test_a_region_that_is_shown_in_much_less_detail_is_told(tmp_path):
    path = write_svs(tmp_path / "large.svs", (4000, 3000), downsamples=(4,))
    for regions, words in (
        (["0,0,4000,3000"], "the region is looked at as a whole, with 7 times less detail"),
        (["0,0,1000,800"], ""),
    ):
        warnings = dragonfly("ask", path, "Is it?", "--region", *regions, "--json").json["warnings"]
        assert any(words in warning for warning in warnings) if words else not any("detail" in w for w in warnings)


def test_no_region_is_left_out_for_the_budget_and_what_is_left_out_is_told(slide):
    source = open_source(slide)
    regions = ["500,500,2000,1500", "2000,1000,1500,900", "100,100,900,900"]
    planned = plan_looks(source, LookOptions(region=regions, mpp=0.5, budget=2), CANVAS_WH)
    assert [field.box.size_wh for field in planned.fields] == [(2000, 1500), (1500, 900), (900, 900)]
    assert any("--budget 2: none of" in warning for warning in source.warnings)


def test_lengths_on_pixels_that_are_not_square_are_each_by_its_own_axis(tmp_path):
    """A pixel is 0.5 um wide and 0.25 um high."""
    path, scale = tmp_path / "a.tif", {"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, tissue_like((900, 700)), photometric="rgb", tile=(256, 256), **scale)
    record = dragonfly("ask", path, "Is it?", "--region", "50.4um,25.2um,100um,50um", "--json").json
    (field,) = record["fields"]
    assert field["box"] == {"x": 101, "y": 101, "width": 200, "height": 200}  # to the nearest pixel
    assert field["box_um"] == {"x": 50.5, "y": 25.25, "width": 100, "height": 50}


def test_a_scale_finer_than_the_slide_s_is_told(slide):
    source = open_source(slide)
    plan_looks(source, LookOptions(mpp=0.1), CANVAS_WH)
    assert "--mpp 0.1: the slide has no finer level than 0.5" in source.warnings


def test_a_region_that_reaches_beyond_the_slide_is_cut_and_told(slide):
    source = open_source(slide)
    (field,) = plan_looks(source, LookOptions(region=["3500,2500,1000,1000"]), CANVAS_WH).fields
    assert field.box == Box(3500, 2500, 500, 500) and "beyond the image" in source.warnings[0]


@pytest.mark.parametrize(
    ("options", "words"),
    [
        (["--region", "1,2,3"], "X,Y,W,H"),
        (["--region", "1,2,3,4furlongs"], "furlongs"),
        (["--region", "9000,0,10,10"], "outside"),
        (["--region", "0,0,0,10"], "less than a pixel"),
        (["--center", "1"], "X,Y"),
        (["--fov", "500um"], "--center"),
        (["--mpp", "0"], "above 0"),
        (["--mpp", "1", "--level", "0"], "--level"),
        (["--level", "7"], "2 levels"),
        (["--time-limit", "-1"], "above 0"),
        (["--roi-class", "Tumor"], "--roi"),
        (["--slice", "1"], "--slice is for images with slices"),
        (["--montage", "2x2"], "--montage is for images with slices"),
        (["--frame", "3"], "has 1 frame"),
        (["--region", f"0,0,{'9' * 400},10"], "X,Y,W,H"),
        (["--center", f"{'9' * 400},0"], "X,Y"),
        (["--slide-mpp", "1e9"], "no image has so many microns"),
        (["--slide-mpp", "nan"], "no image has so many microns"),
        (["--slide-mpp", "0"], "no image has so many microns"),
    ],
)
def test_what_cannot_be_meant_is_told(slide, options, words):
    expect_error(dragonfly("ask", slide, "Is there necrosis?", *options), 2, words)


def test_a_picture_has_regions_but_no_scales(tmp_path):
    path = write_png(tmp_path / "a.png", (400, 300))
    source = open_source(path)
    (field,) = plan_looks(source, LookOptions(region=["10,20,100,50"]), CANVAS_WH).fields
    assert (field.role, field.box) == ("region", Box(10, 20, 100, 50))
    with pytest.raises(UsageError, match="not a slide"):
        plan_looks(source, LookOptions(mpp=0.5), CANVAS_WH)


def test_a_blurred_slide_is_told(tmp_path):
    pixels = tissue_like((2000, 1500))
    smooth = np.where(pixels < 240, np.uint8(150), pixels)
    source = open_source(write_svs(tmp_path / "a.svs", pixels=smooth))
    plan_looks(source, LookOptions(), CANVAS_WH)
    assert any("out of focus" in warning for warning in source.warnings)
