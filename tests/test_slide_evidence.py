"""A slide from the question to the evidence: the search with the model, GeoJSON, overlay, views."""

import json
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_runs import TINY, files_limited_to
from layer_calls import seconds_are_passes
from make_files import tissue_like, write_png, write_scn, write_svs
from PIL import Image, ImageFont
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.questions import UNCONFIRMED
from dragonfly_cli.geometry import Box, ViewerPixels
from dragonfly_cli.output.fonts import font_for
from dragonfly_cli.output.geojson import as_geojson
from dragonfly_cli.output.overlay import round_length, wrapped
from dragonfly_cli.output.votes import NO_COLOUR, YES_COLOUR
from dragonfly_cli.readers import pyramid
from dragonfly_cli.readers.slide import SlideSource
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.crops import cut_crops, draw_canvases, normalize
from dragonfly_med.modeling import ImageEncoder
from dragonfly_med.views import ViewPlan

QUESTION = "Is there a tumour?"
SIZE_WH = (2000, 1500)
INK = (30, 30, 30)  # of texts and the scale bar
CROPS = 29  # of an image that v1 reads whole


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
    assert record["timing"]["search_s"] > 0
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


def test_a_free_answer_of_several_lines_is_a_class_of_one(asked):
    record, *_ = asked
    fields = [field | {"answer": "1. gland\n2. stroma", "probabilities": None} for field in record["fields"]]
    text = as_geojson([record | {"answer": "stroma", "probabilities": None, "fields": fields}], ViewerPixels())
    first = json.loads(text)["features"][0]["properties"]
    assert first["classification"]["name"] == "1. gland 2. stroma"
    assert first["name"] == "overview 0: 1. gland 2. stroma"


def test_the_offset_of_a_slide_s_bounds_is_taken_off_and_said(asked):
    record, collection, _, _ = asked
    moved = json.loads(as_geojson([record], ViewerPixels((100, 40))))
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


def test_boxes_are_right_to_the_pixel_on_a_slide_whose_scan_has_an_offset(tmp_path):
    """A red square of 400 x 300 px at (500, 200) of a scan that lies at (1000, 700) of the slide."""
    pixels = tissue_like((1600, 1200))
    pixels[200:500, 500:900] = (255, 0, 0)
    slide = write_scn(tmp_path / "a.scn", pixels, (1000, 700), (3300, 2200))
    square = {"x": 1500, "y": 900, "width": 400, "height": 300}
    region = ["--region", "1500,900,400,300"]
    assert dragonfly("view", slide, *region, "--what", "display", "-o", tmp_path / "seen.png").code == 0
    seen = np.asarray(Image.open(tmp_path / "seen.png")).astype(int)
    assert seen.shape == (300, 400, 3) and np.abs(seen - (255, 0, 0)).max() < 100  # no pixel of the tissue around it
    files = ["--geojson", tmp_path / "seen.geojson", "--overlay", tmp_path / "overlay.png"]
    outcome = dragonfly("ask", slide, QUESTION, *region, *files, "--json")
    assert outcome.json["fields"][0]["box"] == square
    (ring,) = json.loads((tmp_path / "seen.geojson").read_text())["features"][0]["geometry"]["coordinates"]
    assert (ring[0], ring[2]) == ([500, 200], [900, 500])
    from_corner = ["--no-bounds-offset", "--geojson", tmp_path / "from_corner.geojson"]
    assert dragonfly("ask", slide, QUESTION, *region, *from_corner).code == 0
    for named in ("seen", "from_corner"):  # each says where it counts from
        again = dragonfly("ask", slide, QUESTION, "--roi", tmp_path / f"{named}.geojson", "--json").json
        assert again["fields"][0]["box"] == square
    overlay = np.asarray(Image.open(tmp_path / "overlay.png").convert("RGB")).astype(int)
    drawn = (np.abs(overlay - (255, 0, 0)).max(axis=-1) < 40)[:, : 24 + 1100]  # a map of 1100 px, a margin of 24
    rows, columns = np.nonzero(drawn)
    line = 6  # the field's frame, white and coloured lines, is drawn on the inside of the square
    assert [columns.min() - 24, columns.max() + 1 - 24] == pytest.approx([1500 / 3 + line, 1900 / 3 - line], abs=1)
    assert rows.max() + 1 - rows.min() == pytest.approx(300 / 3 - 2 * line, abs=1)


GAP, FIELD_GAP, FRAME = 4, 40, [230, 120, 0]


def taken_apart(picture: Path, plans: list[ViewPlan]) -> list[list[np.ndarray]]:
    """The crops of every field as ``view`` lays them out: each with the line of the gap on its left."""
    sheet = np.asarray(Image.open(picture))
    fields, top = [], GAP
    for plan in plans:
        side = plan.side_px
        middle_rows, high_rows = plan.middle_grid[1], plan.high_grid[1]
        high_y = top + middle_rows * (side + GAP) - GAP + 3 * GAP
        origins = [(GAP, top), (GAP + side + 3 * GAP, top), (GAP, high_y)]
        crops = []
        for (left, y), (columns, rows) in zip(origins, plan.grids, strict=True):
            for row, column in np.ndindex(rows, columns):
                x0, y0 = left + column * (side + GAP), y + row * (side + GAP)
                crops.append(sheet[y0 : y0 + side, x0 - 1 : x0 + side])
        fields.append(crops)
        top = high_y + high_rows * (side + GAP) + FIELD_GAP + GAP
    assert top - FIELD_GAP - GAP == sheet.shape[0]
    return fields


@pytest.fixture
def given():
    """The pixels [crops, 3, side, side] of every image that a Dragonfly reads whole, in order."""
    seen = []

    def note(module, args, output):
        if isinstance(module, ImageEncoder) and len(args[0]) == CROPS:
            seen.append(args[0].numpy())

    handle = torch.nn.modules.module.register_module_forward_hook(note)
    yield seen
    handle.remove()


CONFIRMED = ["--budget", "4", "--aggregate", "confirmed"]  # one of three zooms is a second look


@pytest.mark.parametrize(
    ("question", "options"),
    [
        (QUESTION, ["--budget", "2"]),
        (None, ["--budget", "2"]),
        (QUESTION, CONFIRMED),
    ],
)
def test_view_draws_the_fields_and_the_crops_that_the_model_is_given(asked, tmp_path, given, question, options):
    *_, slide = asked
    command = ["ask", slide, question] if question else ["caption", slide]
    record = dragonfly(*command, *options, "--json", "--max-tokens", "2").json
    assert [field["role"] for field in record["fields"]] == ["overview"] + ["zoom"] * (int(options[1]) - 1)
    read = list(given)
    asking = ["-q", question] if question else []
    assert dragonfly("view", slide, *asking, *options, "-o", tmp_path / "seen.png").code == 0
    processor = DragonflyProcessor.from_pretrained(find_checkpoint("demo").folder)
    boxes = [Box(**field["box"]) for field in record["fields"]]
    plans = [processor.plan(box.size_wh) for box in boxes]
    drawn = taken_apart(tmp_path / "seen.png", plans)
    assert len(read) == len(drawn) == int(options[1])
    for pixels, crops, field, box, plan in zip(read, drawn, record["fields"], boxes, plans, strict=True):
        assert np.array_equal(normalize([crop[:, 1:] for crop in crops]), pixels)
        marked = [number for number, crop in enumerate(crops[5:]) if (crop[:, 0] == FRAME).all()]
        places = [plan.high_crop(number).box_in(box.size_wh) for number in marked]
        assert len(marked) == 12
        assert [(x + box.x, y + box.y) for x, y, _, _ in places] == [(b["x"], b["y"]) for b in field["selected"]]
        assert not any((crop[:, 0] == FRAME).any() for crop in crops[:5])


def test_fields_spread_evenly_are_drawn_without_weights(asked, tmp_path):
    *_, slide = asked
    model = tmp_path / "model"
    model.mkdir()
    config = {"model_type": "dragonfly", "image_encoder": "openai/clip-vit-base-patch32"}
    (model / "config.json").write_text(json.dumps(config))
    call = ["view", slide, "-m", model, "-o", tmp_path / "seen.png"]
    assert dragonfly(*call, "--rank", "spread", "--what", "fields").code == 0
    expect_error(dragonfly(*call), 5, str(model))


def test_view_of_a_region_is_what_pillow_makes_of_it(asked, tmp_path):
    *_, slide = asked
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


def test_outputs_are_checked_before_any_work(asked, tmp_path):
    *_, slide = asked
    missing = tmp_path / "no" / "a.geojson"
    expect_error(dragonfly("ask", slide, QUESTION, "--geojson", missing), 7, "a.geojson")
    same = tmp_path / "a"
    expect_error(dragonfly("ask", slide, QUESTION, "--geojson", same, "--overlay", same), 2, "same name")
    assert not list(tmp_path.iterdir())


def test_no_output_replaces_what_is_read(tmp_path):
    slide = write_svs(tmp_path / "slide.svs", (600, 400))
    roi = tmp_path / "roi.geojson"
    roi.write_text('{"type": "Polygon", "coordinates": [[[100, 50], [400, 50], [100, 250]]]}')
    (tmp_path / "link.svs").symlink_to(slide)
    before = slide.read_bytes(), roi.read_bytes()
    for options in (["--overlay", slide], ["--geojson", slide], ["-o", tmp_path / "link.svs"], ["--geojson", roi]):
        expect_error(dragonfly("ask", slide, QUESTION, "--roi", roi, *options), 2, str(options[1]), "would be lost")
    expect_error(dragonfly("view", slide, "-o", slide), 2, "slide.svs", "would be lost")
    assert before == (slide.read_bytes(), roi.read_bytes())


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


@pytest.mark.parametrize("kept", [1000, 60_000])
def test_a_slide_that_was_cut_short_is_told_in_our_words_alone(asked, tmp_path, kept, capfd):
    *_, slide = asked
    (tmp_path / "cut.svs").write_bytes(slide.read_bytes()[:kept])
    expect_error(dragonfly("ask", tmp_path / "cut.svs", QUESTION), 4, "cut.svs: the file is cut short")
    assert capfd.readouterr().err == ""  # nor any of libtiff's


def test_a_tiff_without_its_directory_is_damaged_and_not_of_an_unknown_kind(tmp_path):
    (tmp_path / "cut.svs").write_bytes(b"II*\0\xff\xff\xff\0" + b"tiles" * 100)  # slides may end with the directory
    expect_error(dragonfly("info", tmp_path / "cut.svs"), 4, "cut.svs: the image data is damaged")


def test_a_slide_that_changes_meanwhile_gives_no_answer(tmp_path):
    path = write_svs(tmp_path / "slide.svs", SIZE_WH)

    def write_on(module, args, output):
        if isinstance(module, DragonflyForCausalLM):
            with path.open("ab") as file:
                file.write(b"more")

    handle = torch.nn.modules.module.register_module_forward_hook(write_on)
    try:
        outcome = dragonfly("ask", path, QUESTION, "--budget", "6", "--rank", "spread", "--json")
    finally:
        handle.remove()
    expect_error(outcome, 4, "slide.svs: it changed while it was read")


def test_zero_tissue_is_told_and_answered(tmp_path: Path):
    path = write_svs(tmp_path / "glass.svs", pixels=np.full((1100, 1500, 3), 243, np.uint8))
    record = dragonfly("ask", path, QUESTION, "--budget", "2", "--json").json
    assert record["fields"][0]["box"] == {"x": 0, "y": 0, "width": 1500, "height": 1100}
    assert any("tissue: fallback" in warning for warning in record["warnings"])


def test_a_slide_of_one_huge_level_is_read_as_a_whole_once_for_all_that_shows_it(tmp_path, monkeypatch):
    monkeypatch.setattr(pyramid, "MAX_REGION_PIXELS", 1_100_000)
    path = write_svs(tmp_path / "one.svs", (2400, 1700), downsamples=())
    read = []
    original = SlideSource.read
    monkeypatch.setattr(
        SlideSource, "read", lambda source, plan, *rest: read.append(plan) or original(source, plan, *rest)
    )
    files = ["--geojson", tmp_path / "seen.geojson", "--overlay", tmp_path / "seen.png"]
    assert dragonfly("ask", path, QUESTION, "Is there necrosis?", "--budget", "2", *files).code == 0
    large = [plan.region.size_wh for plan in read if plan.level == 0 and plan.region.width > 1000]
    assert large == [(2400, 1700)]


@pytest.mark.parametrize(("wanted", "length"), [(1, 1), (1.9, 1), (2, 2), (49, 20), (730, 500), (0.034, 0.02)])
def test_a_scale_bar_has_a_round_length(wanted, length):
    assert round_length(wanted) == pytest.approx(length)


@pytest.mark.parametrize("mpp", [0.25, 2.0, None])
def test_a_scale_bar_is_as_long_as_it_says(tmp_path, drawn, mpp):
    slide, seen = write_svs(tmp_path / "a.svs", (800, 600), mpp=mpp), tmp_path / "seen.png"
    assert dragonfly("ask", slide, QUESTION, "--region", "0,0,400,300", "--overlay", seen).code == 0
    said = next(text for text in drawn if re.fullmatch(r"\d+ (um|px)", text))  # the field has a smaller one
    ink = (np.asarray(Image.open(seen).convert("RGB")) == INK).all(axis=-1)
    bar_px = max(len(run) for row in ink for run in "".join(map("-#".__getitem__, row.astype(int))).split("-"))
    assert bar_px == pytest.approx(int(said.split()[0]) / (mpp or 1) * 1100 / 800, abs=1.5)  # on a map of 1100 px


def test_a_time_limit_ends_the_search_with_an_answer(asked):
    *_, slide = asked
    outcome = dragonfly("ask", slide, QUESTION, "Is there necrosis?", "--time-limit", "0.001", "--json")
    for record in outcome.json:
        assert [field["role"] for field in record["fields"]] == ["overview"]
        assert sum(warning.startswith("--time-limit: ") for warning in record["warnings"]) == 1
    assert outcome.stderr.count("warning: --time-limit: ") == 2  # of each answer


def test_a_time_limit_holds_for_named_regions_too(asked):
    *_, slide = asked
    regions = ["--region", "0,0,400,300", "--region", "500,0,400,300", "--region", "0,500,400,300"]
    record = dragonfly("ask", slide, QUESTION, *regions, "--time-limit", "0.001", "--json").json
    assert [field["box"]["x"] for field in record["fields"]] == [0]
    assert "--time-limit: 2 fields were not looked at in time" in record["warnings"]


def test_second_looks_for_which_there_is_no_time_are_told(asked, tmp_path):
    *_, slide = asked
    call = ["batch", slide, "-q", QUESTION, *CONFIRMED, "--rank", "spread", "--time-limit", "2.5", "-m", TINY]
    with seconds_are_passes():
        told = dragonfly(*call, "-o", tmp_path / "answers.csv", "--records", tmp_path / "records.jsonl").stderr
    record = json.loads((tmp_path / "records.jsonl").read_text())
    assert (len(record["fields"]), record["aggregate"]) == (3, "top3-mean")
    late = "--time-limit: the fields for second looks were not looked at in time"
    assert late in record["warnings"]
    assert UNCONFIRMED in record["warnings"]
    assert f"warning: {UNCONFIRMED} (answers of this call: 1)\n" in told
    assert f"warning: {slide}: {late}" in told


@pytest.mark.parametrize("form", [["--options", "benign,malignant"], ["--scale", "1-3"]])
def test_a_slide_is_searched_for_answers_other_than_yes_and_no(asked, form):
    *_, slide = asked
    record = dragonfly("ask", slide, "Which is it?", *form, "--budget", "3", "--json").json
    assert [field["role"] for field in record["fields"]] == ["overview", "zoom", "zoom"]
    assert record["aggregate"] == "mean"
    for option, value in record["probabilities"].items():
        assert value == pytest.approx(np.mean([field["probabilities"][option] for field in record["fields"]]))


@pytest.mark.parametrize("size_wh", [(1600, 60), (60, 1600)])
def test_the_legend_of_a_strip_is_beside_it_and_whole(tmp_path, size_wh):
    strip = write_png(tmp_path / "strip.png", size_wh, "black")
    assert dragonfly("ask", strip, QUESTION, "--overlay", tmp_path / "seen.png").code == 0
    left = np.asarray(Image.open(tmp_path / "seen.png").convert("RGB"))[:, : 1100 if size_wh[0] > size_wh[1] else 348]
    for colour in (YES_COLOUR, NO_COLOUR):  # of which a picture about which nothing is known has nothing else
        assert (left == colour).all(axis=-1).sum() == 15 * 13


def test_letters_beyond_ascii_are_drawn_where_the_machine_has_them():
    font = font_for(26, "größer")
    if font.getname() == font_for(26).getname():
        pytest.skip("no font with more letters is installed")
    assert bytes(font.getmask("ö")) != bytes(font.getmask("\ue000"))
    assert font_for(26, "10 ± 2 …") is font_for(26, "large")  # loaded once, however many pictures are drawn


def test_a_long_answer_is_wrapped_and_at_last_shortened():
    font = ImageFont.load_default(26)
    text = " ".join(f"word{number}" for number in range(60))
    lines = wrapped(text, font, 800)
    assert len(lines) == 4 and all(font.getlength(line) <= 800 for line in lines)
    assert text.startswith(" ".join(lines).rstrip("…")) and lines[-1].endswith("…")
    assert wrapped("  Is there\nnecrosis? ", font, 800) == ["Is there necrosis?"]
    assert wrapped("x" * 400, font, 800)[0].endswith("…")


def test_an_answer_is_not_lost_where_its_picture_cannot_be_written(tmp_path):
    photo = write_png(tmp_path / "photo.png")
    with files_limited_to(2000):
        outcome = dragonfly("ask", photo, QUESTION, "--json", "--overlay", tmp_path / "overlay.png")
    assert outcome.code == 7 and "File too large" in outcome.stderr
    assert outcome.json["question"] == QUESTION
    assert not (tmp_path / "overlay.png").exists()
