"""Outlines from QuPath: which areas of a slide they name, what of them is left out, and what is no outline."""

import json
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from make_files import write_svs
from run_dragonfly import dragonfly, expect_error
from slide_plans import CANVAS_WH, GLASS, PINK, plan

from dragonfly_cli.fields import plan_looks
from dragonfly_cli.fields.grid import Grid
from dragonfly_cli.fields.outline import Outlined
from dragonfly_cli.fields.tissue import Tissue
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import open_source


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(1, 60), st.integers(1, 60))
def test_an_outline_of_everything_is_tissue_where_everything_is(width, height, columns, rows):
    tissue = Tissue(np.ones((rows, columns), bool), (width, height), found=True)
    assert Outlined(tissue, shapely.box(0, 0, width, height)).tissue_share == pytest.approx(1)


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    """4000 x 3000 px at 0.5 microns per pixel, tissue in the middle."""
    return write_svs(tmp_path_factory.mktemp("slides") / "slide.svs", (4000, 3000))


def ring(left, top, right, bottom):
    return [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]


def feature(name, geometry, coordinates):
    properties = {"objectType": "annotation", "classification": {"name": name, "color": [200, 0, 0]}}
    return {"type": "Feature", "geometry": {"type": geometry, "coordinates": coordinates}, "properties": properties}


@pytest.fixture
def roi(tmp_path) -> Path:
    features = [
        feature("Tumor", "Polygon", [ring(800, 600, 3200, 2400), ring(1400, 900, 3000, 2300)]),
        feature("Stroma", "MultiPolygon", [[ring(1000, 1000, 1200, 1200)], [ring(1300, 1000, 1500, 1200)]]),
        feature("Tumor", "LineString", ring(0, 0, 10, 10)),
    ]
    path = tmp_path / "roi.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    return path


@pytest.mark.parametrize("kind", ["Polygon", "MultiPolygon"])
def test_an_empty_outline_costs_the_others_nothing(slide, tmp_path, kind):
    features = [feature("Tumor", kind, []), feature("Tumor", "Polygon", [ring(800, 600, 3200, 2400)])]
    path = tmp_path / "roi.geojson"
    path.write_text(json.dumps({"type": "FeatureCollection", "features": features}))
    planned = plan(slide, roi=path)
    assert planned.fields[0].box == Box(800, 600, 2400, 1800)


def test_an_outline_is_searched_and_its_hole_is_not(slide, roi):
    first, *zooms = plan(slide, roi=roi, roi_class=["tumor"], budget=40).fields
    assert (first.role, first.box) == ("region", Box(800, 600, 2400, 1800))
    assert zooms and not any(
        f.box.x >= 1400 and f.box.x + 672 <= 3000 and f.box.y >= 900 and f.box.y + 448 <= 2300 for f in zooms
    )


@pytest.mark.parametrize("outlined", [(900, 700, 1030, 2300), (900, 700, 3000, 1000), (900, 700, 2400, 2200)])
def test_no_field_reaches_beyond_what_was_outlined(slide, tmp_path, outlined):
    """What lies beside it, a lesion say, would answer for it."""
    path = tmp_path / "narrow.geojson"
    path.write_text(json.dumps(feature("Tumor", "Polygon", [ring(*outlined)])))
    fields = plan(slide, roi=path, budget=40).fields
    left, top, right, bottom = outlined
    assert len(fields) > 2
    for field in fields:
        box = field.box.corners
        assert left <= box[0] and top <= box[1] and box[2] <= right and box[3] <= bottom


def test_an_outline_of_one_field_is_one_field(slide, roi):
    assert [field.box for field in plan(slide, roi=roi, roi_class=["Stroma"]).fields] == [Box(1000, 1000, 500, 200)]


def test_a_small_outline_beside_a_large_one_is_looked_at(slide, tmp_path):
    small = [ring(2950, 1400, 3010, 1450), ring(2000, 2100, 2080, 2170)]
    large = feature("Tumor", "Polygon", [ring(800, 900, 2200, 1900)])
    path = tmp_path / "roi.geojson"
    path.write_text(json.dumps([large, *(feature("Tumor", "Polygon", [one]) for one in small)]))
    zooms = plan(slide, roi=path, budget=40).fields[1:]
    for (left, top), _, (right, bottom), *_ in small:
        assert any(field.box.meets(Box(left, top, right - left, bottom - top)) for field in zooms)


@given(st.integers(2001, 3500), st.integers(10, 60), st.booleans())
def test_a_long_thin_outline_beside_a_large_one_is_looked_at(top, height, on_glass):
    """Though each field shows less than a fifth of it, and it lies in the same piece of tissue or in none."""
    thin = shapely.box(1200, top, 5800, top + height)
    mask = np.ones((400, 700), bool)
    mask[:, on_glass:] = not on_glass
    tissue = Tissue(mask, (7000, 4000), found=True)
    area = Outlined(tissue, shapely.union_all([shapely.box(1000, 500, 6000, 2000), thin]))
    grid = Grid(area, area.bounds, CANVAS_WH)
    shown = shapely.union_all([shapely.box(*grid.box(cell).corners) for cell in grid.cells()])
    assert area.has_tissue != on_glass and thin.intersection(shown).area >= thin.area / 2


def test_an_outline_with_little_tissue_is_searched_where_that_is(tmp_path):
    pixels = np.full((3000, 4000, 3), GLASS, np.uint8)
    pixels[1300:2100, 1000:1900] = PINK  # 6 % of it
    path = write_svs(tmp_path / "a.svs", pixels=pixels)
    zooms = plan(path, region=["0,0,100%,100%"], mpp=0.5).fields[1:]
    assert zooms and all(field.box.meets(Box(1000, 1300, 900, 800)) for field in zooms)


def test_outlines_that_are_none_are_told(slide, roi, tmp_path):
    expect_error(dragonfly("ask", slide, "Is it?", "--roi", roi, "--roi-class", "Fat"), 2, "class Fat")
    expect_error(dragonfly("ask", slide, "Is it?", "--roi", tmp_path / "no.geojson"), 3, "no.geojson")
    for name, text in (
        ("text", "nothing"),
        ("other", '{"a": 1}'),
        ("bent", json.dumps(feature("x", "Polygon", [[1, 2]]))),
    ):
        path = tmp_path / f"{name}.geojson"
        path.write_text(text)
        expect_error(dragonfly("ask", slide, "Is it?", "--roi", path), 4, path.name)
    expect_error(dragonfly("ask", slide, "Is it?", "--roi", tmp_path), 4, f"{tmp_path}: is a directory")
    far = tmp_path / "far.geojson"
    far.write_text(json.dumps(feature("x", "Polygon", [ring(9000, 9000, 9100, 9100)])))
    outcome = dragonfly("ask", slide, "Is it?", "--roi", far)
    expect_error(outcome, 2, "outside", "4000 x 3000 px")
    assert "--no-bounds-offset" not in outcome.stderr  # this slide has no offset


def write_roi(path: Path, *features, **collection) -> Path:
    path.write_text(json.dumps(collection or list(features)))
    return path


SQUARE = {"type": "Polygon", "coordinates": [ring(1000, 1000, 1400, 1300)]}


@pytest.mark.parametrize("wanted", ["Tumor", "tumor: positive", "TUMOR: Positive"])
@pytest.mark.parametrize("known", [{"names": ["Tumor", "Positive"]}, {"name": "Tumor: Positive"}, "Tumor: Positive"])
def test_a_class_is_chosen_by_its_own_name_and_by_that_of_the_class_it_is_in(slide, tmp_path, wanted, known):
    other = feature("Tumour", "Polygon", [ring(2000, 2000, 2100, 2100)])
    chosen = {"type": "Feature", "geometry": SQUARE, "properties": {"classification": known}}
    path = write_roi(tmp_path / "a.geojson", chosen, other)
    assert [field.box for field in plan(slide, roi=path, roi_class=[wanted]).fields] == [Box(1000, 1000, 400, 300)]


def test_a_class_is_known_however_its_accents_are_written(slide, tmp_path):
    path = write_roi(tmp_path / "a.geojson", feature("Dr\u00fcse", "Polygon", SQUARE["coordinates"]))
    for name in ("Drüse", "dru\u0308se", "DRÜSE"):
        assert [field.box for field in plan(slide, roi=path, roi_class=[name]).fields] == [Box(1000, 1000, 400, 300)]


def test_an_outline_smaller_than_a_pixel_is_the_pixel_it_lies_in(slide, tmp_path):
    path = write_roi(tmp_path / "a.geojson", feature("x", "Polygon", [ring(1000.2, 1000.2, 1000.7, 1000.7)]))
    assert [field.box for field in plan(slide, roi=path).fields] == [Box(1000, 1000, 1, 1)]


def test_a_class_that_is_not_there_is_told_beside_one_that_is(slide, roi):
    outcome = dragonfly("ask", slide, "Is it?", "--roi", roi, "--roi-class", "Tumor", "--roi-class", "Strom")
    expect_error(outcome, 2, "class Strom")
    assert "Stroma, Tumor" in outcome.error_lines[1]


@pytest.mark.parametrize("properties", [None, [1], "x", {"classification": 3}, {"classification": {"names": [None]}}])
def test_properties_that_are_none_have_no_class(slide, tmp_path, properties):
    path = write_roi(tmp_path / "a.geojson", {"type": "Feature", "geometry": SQUARE, "properties": properties})
    assert [field.box for field in plan(slide, roi=path).fields] == [Box(1000, 1000, 400, 300)]
    expect_error(dragonfly("ask", slide, "Is it?", "--roi", path, "--roi-class", "Tumor"), 2, "class Tumor")


def test_of_a_collection_of_shapes_the_polygons_are_looked_at_and_nothing_around_the_others(slide, tmp_path):
    far = {"type": "LineString", "coordinates": [[0, 0], [3900, 2900]]}
    collection = {
        "type": "GeometryCollection",
        "geometries": [far, {"type": "MultiPolygon", "coordinates": [SQUARE["coordinates"]]}],
    }
    for path in (
        write_roi(tmp_path / "bare.geojson", **collection),
        write_roi(tmp_path / "a.geojson", {"type": "Feature", "geometry": collection, "properties": {}}),
    ):
        assert [field.box for field in plan(slide, roi=path).fields] == [Box(1000, 1000, 400, 300)]


def test_what_of_a_file_of_outlines_is_not_looked_at_is_told(slide, tmp_path):
    beyond = feature("x", "Polygon", [ring(3000, 1000, 5000, 2000)])
    path = write_roi(
        tmp_path / "a.geojson", beyond, feature("x", "LineString", ring(0, 0, 10, 10)), feature("x", "", None)
    )
    source = open_source(slide)
    fields = plan_looks(source, LookOptions(roi=path), CANVAS_WH).fields
    assert fields[0].box == Box(3000, 1000, 1000, 1000)
    assert "--roi: 50 % of what is outlined lies beyond the slide and was left out" in source.warnings
    assert "--roi: shapes without an area, such as lines and points, were left out: 2" in source.warnings


def test_an_outline_that_is_hardly_tissue_is_told(tmp_path):
    pixels = np.full((3000, 4000, 3), GLASS, np.uint8)
    pixels[:, :1000] = PINK
    path = write_svs(tmp_path / "a.svs", pixels=pixels)
    # around the tissue, but for a strip of it: what lies between is of no matter
    around = [
        [600, 0],
        [4000, 0],
        [4000, 3000],
        [600, 3000],
        [600, 2900],
        [3900, 2900],
        [3900, 100],
        [600, 100],
        [600, 0],
    ]
    for ring_xy, told in (
        (ring(800, 0, 4000, 3000), "only 6% of what was outlined is tissue, and only that was searched"),
        (ring(1100, 0, 4000, 3000), "hardly any tissue was found in what was outlined, so all of it was searched"),
        (around, "only 8% of what was outlined is tissue, and only that was searched"),
        (ring(0, 0, 4000, 3000), None),
    ):
        roi = write_roi(tmp_path / "a.geojson", feature("x", "Polygon", [ring_xy]))
        source = open_source(path)
        plan_looks(source, LookOptions(roi=roi), CANVAS_WH)
        assert [line for line in source.warnings if "outlined" in line] == ([told] if told else [])


def test_little_tissue_is_told_where_nothing_is_searched_too(tmp_path):
    pixels = np.full((1500, 2000, 3), GLASS, np.uint8)
    pixels[:, :800] = PINK
    path = write_svs(tmp_path / "a.svs", pixels=pixels)
    glass, edge, large = ring(1000, 200, 1400, 500), ring(750, 200, 1250, 500), ring(900, 0, 2000, 1500)
    hardly = "hardly any tissue was found in"
    for looking, told in (
        ({"roi": glass}, f"{hardly} what was outlined"),
        ({"roi": edge}, "only 10% of what was outlined is tissue"),
        ({"roi": ring(700, 200, 900, 500)}, None),
        ({"roi": large, "budget": 1}, f"{hardly} what was outlined"),
        ({"region": ["1000,200,400,300"], "mpp": 0.5}, f"{hardly} the region"),
        ({"region": ["900,0,1100,1500"], "mpp": 0.5}, f"{hardly} the region, so all of it was searched"),
    ):
        if "roi" in looking:
            looking["roi"] = write_roi(tmp_path / "a.geojson", feature("x", "Polygon", [looking["roi"]]))
        source = open_source(path)
        plan_looks(source, LookOptions(**looking), CANVAS_WH)
        little = [line for line in source.warnings if line.startswith(("hardly", "only"))]
        assert little == ([told] if told else [])


def test_outlines_are_understood_before_a_pixel_is_read(tmp_path):
    path = write_svs(tmp_path / "a.svs", (2000, 1500), downsamples=())
    with tifffile.TiffFile(path) as tiff:
        first, last = tiff.pages[0].dataoffsets[0], tiff.pages[0].dataoffsets[-1]
    with path.open("r+b") as file:
        file.seek(first)
        file.write(b"\0" * (last - first))
    (tmp_path / "roi.geojson").write_text("nothing")
    expect_error(dragonfly("ask", path, "Is it?", "--roi", tmp_path / "roi.geojson"), 4, "roi.geojson: it is not JSON")
    expect_error(dragonfly("ask", path, "Is it?"), 4, "a.svs", "tiles are damaged")
