"""A slide from the question to the evidence: the search with the model, GeoJSON, overlay, views."""

import json
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from make_files import tissue_like, write_svs
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.geometry import Box
from dragonfly_cli.output.geojson import as_geojson
from dragonfly_cli.output.overlay import round_length
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.ahead import SourceAhead
from dragonfly_med import DragonflyProcessor
from dragonfly_med.crops import cut_crops, draw_canvases

QUESTION = "Is there a tumour?"
SIZE_WH = (2000, 1500)


@pytest.fixture(scope="module")
def asked(tmp_path_factory):
    """The record, the GeoJSON and the picture of one question about a slide of several fields."""
    folder = tmp_path_factory.mktemp("asked")
    slide = write_svs(folder / "slide.svs", SIZE_WH)
    files = ["--geojson", folder / "seen.geojson", "--overlay", folder / "seen.png"]
    outcome = dragonfly("ask", slide, QUESTION, "--budget", "4", "--json", *files)
    assert outcome.code == 0, outcome.stderr
    return outcome.json, json.loads((folder / "seen.geojson").read_text()), Image.open(folder / "seen.png"), slide


def test_a_slide_is_answered_from_its_overview_and_its_fields(asked):
    record, *_ = asked
    assert [field["role"] for field in record["fields"]] == ["overview", "zoom", "zoom", "zoom"]
    assert record["aggregate"] == "top3-mean"
    each = sorted(field["probabilities"]["yes"] for field in record["fields"])
    assert record["probabilities"]["yes"] == pytest.approx(np.mean(each[-3:]))
    for field in record["fields"][1:]:
        assert field["mpp"] == pytest.approx(0.5)
        box, microns = field["box"], field["box_um"]
        assert box["x"] >= 0 and box["x"] + box["width"] <= SIZE_WH[0]
        assert box["y"] >= 0 and box["y"] + box["height"] <= SIZE_WH[1]
        assert {name: value * 0.5 for name, value in box.items()} == microns
        assert len(field["selected"]) == len(field["selected_um"]) == 12


def test_a_yes_can_count_only_as_far_as_a_second_look_agrees(asked):
    *_, slide = asked
    record = dragonfly("ask", slide, QUESTION, "--budget", "4", "--aggregate", "confirmed", "--json").json
    *first, again = record["fields"]
    assert [field["role"] for field in first] == ["overview", "zoom", "zoom"]
    assert [field["second_look_of"] for field in first] == [None] * 3
    strongest = max(first[1:], key=lambda field: field["probabilities"]["yes"])
    inner, outer = Box(**strongest["box"]), Box(**again["box"])
    assert again["second_look_of"] == strongest["id"]
    assert outer.meets(inner) and outer.size_wh == (inner.width * 5 // 4, inner.height * 5 // 4)
    assert record["aggregate"] == "confirmed"
    votes = [strongest["probabilities"]["yes"], again["probabilities"]["yes"]]
    assert record["probabilities"]["yes"] == pytest.approx(min(votes))


def test_geojson_has_the_record_s_boxes_and_votes(asked):
    record, collection, _, _ = asked
    assert collection["type"] == "FeatureCollection"
    annotations = [each for each in collection["features"] if each["properties"]["objectType"] == "annotation"]
    detections = [each for each in collection["features"] if each["properties"]["objectType"] == "detection"]
    assert len(annotations) == 4 and len(detections) == 48
    for field, feature in zip(record["fields"], annotations, strict=True):
        (ring,) = feature["geometry"]["coordinates"]
        box = field["box"]
        assert ring[0] == ring[-1] == [box["x"], box["y"]]
        assert ring[2] == [box["x"] + box["width"], box["y"] + box["height"]]
        properties = feature["properties"]
        assert properties["measurements"]["p_yes"] == field["probabilities"]["yes"]
        assert properties["classification"]["name"] == field["answer"]
        assert len(properties["classification"]["color"]) == 3
    assert len({each["id"] for each in collection["features"]}) == 52
    assert collection["dragonfly"]["offset"] == {"x": 0, "y": 0}


def test_the_offset_of_a_slide_s_bounds_is_taken_off_and_said(asked):
    record, collection, _, _ = asked
    moved = json.loads(as_geojson([record], (100, 40)))
    assert moved["dragonfly"]["offset"] == {"x": 100, "y": 40}
    for plain, shifted in zip(collection["features"], moved["features"], strict=True):
        there = np.array(plain["geometry"]["coordinates"]) - np.array(shifted["geometry"]["coordinates"])
        assert (there == [100, 40]).all()


def test_the_overlay_shows_the_fields_in_the_colour_of_their_vote(asked):
    _, collection, picture, _ = asked
    pixels = np.asarray(picture.convert("RGB"))
    for feature in collection["features"]:
        if feature["properties"]["objectType"] == "annotation":
            assert (pixels == feature["properties"]["classification"]["color"]).all(axis=-1).sum() > 100
    assert picture.width > 1500


def test_view_draws_every_field_as_the_model_gets_it(asked, tmp_path):
    *_, slide = asked
    assert dragonfly("view", slide, "--budget", "3", "-o", tmp_path / "seen.png").code == 0
    sheet = np.asarray(Image.open(tmp_path / "seen.png"))
    processor = DragonflyProcessor.from_pretrained(find_checkpoint("demo").folder)
    side = processor.crop_side_px
    region = dragonfly("view", slide, "--region", "700,500,672,448", "-o", tmp_path / "region.png")
    assert region.code == 0
    one = np.asarray(Image.open(tmp_path / "region.png"))
    box = Image.fromarray(np.asarray(Image.open(slide).convert("RGB"))[500:948, 700:1372])
    plan = processor.plan(box.size)
    crops = cut_crops(draw_canvases(box, plan), plan)
    assert np.abs(one[:side, :side].astype(int) - crops[0]).mean() < 2
    assert np.abs(one[-side:, -side:].astype(int) - crops[-1]).max() <= 2
    assert sheet.shape[0] > 2.9 * one.shape[0]


def test_outputs_are_checked_before_any_work(asked, tmp_path):
    *_, slide = asked
    missing = tmp_path / "no" / "a.geojson"
    expect_error(dragonfly("ask", slide, QUESTION, "--geojson", missing), 7, "a.geojson")
    same = tmp_path / "a"
    expect_error(dragonfly("ask", slide, QUESTION, "--geojson", same, "--overlay", same), 2, "same name")
    assert not list(tmp_path.iterdir())


def test_a_bad_tile_is_told_in_the_record(tmp_path: Path):
    import tifffile

    path = write_svs(tmp_path / "slide.svs", (800, 560), pixels=tissue_like((800, 560)))
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[0]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 40)
    record = dragonfly("ask", path, QUESTION, "--json").json
    assert any("level 0, column 0, row 0" in warning for warning in record["warnings"])


def test_zero_tissue_is_told_and_answered(tmp_path: Path):
    path = write_svs(tmp_path / "glass.svs", pixels=np.full((1100, 1500, 3), 243, np.uint8))
    record = dragonfly("ask", path, QUESTION, "--budget", "2", "--json").json
    assert record["fields"][0]["box"] == {"x": 0, "y": 0, "width": 1500, "height": 1100}
    assert any("tissue: fallback" in warning for warning in record["warnings"])


@pytest.mark.parametrize(("wanted", "length"), [(1, 1), (1.9, 1), (2, 2), (49, 20), (730, 500), (0.034, 0.02)])
def test_a_scale_bar_has_a_round_length(wanted, length):
    assert round_length(wanted) == pytest.approx(length)


def test_a_time_limit_ends_the_search_with_an_answer(asked):
    *_, slide = asked
    record = dragonfly("ask", slide, QUESTION, "--time-limit", "0.001", "--json").json
    assert [field["role"] for field in record["fields"]] == ["overview"]
    assert any(warning.startswith("--time-limit: ") for warning in record["warnings"])


def test_reading_ahead_changes_no_pixel(asked):
    *_, slide = asked
    source = open_source(slide)
    boxes = [Box(x, 200, 672, 448) for x in (100, 700, 900, 1300)]
    sizes = [(112, 112), (224, 224), (672, 448)]
    with closing(SourceAhead(source, boxes, lambda size_wh: sizes[1:])) as ahead:
        assert ahead.size_wh == source.size_wh
        for box in [*boxes, boxes[0]]:
            seen = [ahead.view(box).resize(size).tobytes() for size in sizes]
            assert seen == [source.view(box).resize(size).tobytes() for size in sizes]
