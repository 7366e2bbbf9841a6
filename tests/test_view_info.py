"""``view`` draws what the model is given, pixel for pixel; ``info`` tells what a file is."""

import json
import struct
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tifffile
from make_files import write_dicom, write_png, write_svs
from make_series import write_ct
from PIL import Image, ImageCms
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.output.pictures import crops_picture
from dragonfly_med import DragonflyProcessor
from dragonfly_med.crops import cut_crops, draw_canvases

GAP = 4
SECRET = b"SMITH^JOHN"


def test_crops_are_the_pixels_that_the_model_gets(tmp_path: Path) -> None:
    pixels = np.random.default_rng(1).integers(0, 256, (200, 300, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "photo.png")
    assert dragonfly("view", tmp_path / "photo.png", "-o", tmp_path / "seen.png").code == 0
    processor = DragonflyProcessor.from_pretrained(find_checkpoint("demo").folder)
    plan = processor.plan((300, 200))
    crops = cut_crops(draw_canvases(Image.open(tmp_path / "photo.png"), plan), plan)
    drawn = np.asarray(Image.open(tmp_path / "seen.png"))
    side = plan.side_px
    assert np.array_equal(drawn[:side, :side], crops[0])
    first_middle = side + 3 * GAP
    assert np.array_equal(drawn[:side, first_middle : first_middle + side], crops[1])
    last_row, last_column = drawn[-side:], slice(-side, None)
    assert np.array_equal(last_row[:, last_column], crops[-1])


def test_display_is_the_film_after_window_and_inversion(tmp_path: Path) -> None:
    film = np.tile(np.arange(256, dtype=np.uint16), (32, 1))
    path = write_dicom(tmp_path / "film.dcm", film, photometric="MONOCHROME1", window=(128, 256), bits_stored=8)
    assert dragonfly("view", path, "--what", "display", "-o", tmp_path / "film.png").code == 0
    shown = np.asarray(Image.open(tmp_path / "film.png").convert("L")).astype(int)
    assert shown.shape == (32, 256)
    assert shown[0, 0] == 255
    assert shown[0, -1] == 0
    assert (np.diff(shown[0]) <= 0).all()


def test_fields_are_boxes_on_a_thumbnail(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", (3000, 1500))
    whole = ["--region", "0,0,100%,100%"]
    assert dragonfly("view", path, "--what", "fields", *whole, "-o", tmp_path / "fields.png").code == 0
    picture = Image.open(tmp_path / "fields.png").convert("RGB")
    assert picture.size == (1024, 512)
    assert picture.getpixel((0, 256)) == picture.getpixel((1023, 256)) == (0, 120, 255)
    assert picture.getpixel((512, 256)) != (0, 120, 255)


def test_fields_of_several_frames_are_drawn_on_each(tmp_path: Path) -> None:
    shades = np.array([40, 120, 200], np.uint8)[:, None, None] * np.ones((3, 30, 40), np.uint8)
    clip = write_dicom(tmp_path / "clip.dcm", shades, window=(128, 256), bits_stored=8)
    assert dragonfly("view", clip, "--what", "fields", "-o", tmp_path / "fields.png").code == 0
    sheet = np.asarray(Image.open(tmp_path / "fields.png").convert("RGB"))
    assert sheet.shape[:2] == (3 * 30 + 2 * 10 * GAP, 40)
    tops = [number * (30 + 10 * GAP) for number in range(3)]
    assert [tuple(sheet[top, 0]) for top in tops] == [(0, 120, 255)] * 3
    assert len({int(sheet[top + 15, 20, 0]) for top in tops}) == 3


def test_display_of_a_series_is_its_middle_or_the_named_slice(tmp_path: Path) -> None:
    study = write_ct(tmp_path / "study")
    outcome = dragonfly("view", study, "--what", "display", "-o", tmp_path / "middle.png")
    assert "warning: one of 10 frames, that in the middle, is drawn" in outcome.stderr
    assert "looked at" not in outcome.stderr
    named = dragonfly("view", study, "--what", "display", "--slice", "5", "-o", tmp_path / "fifth.png")
    assert "warning" not in named.stderr
    assert (tmp_path / "middle.png").read_bytes() == (tmp_path / "fifth.png").read_bytes()


def test_display_of_a_slide_is_all_of_it_or_the_region(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", (1500, 1000))
    base = np.asarray(Image.open(path).convert("RGB"))
    (tmp_path / "roi.geojson").write_text('{"type": "Polygon", "coordinates": [[[100, 50], [400, 50], [100, 250]]]}')
    for options, (left, top, right, bottom) in (
        ([], (0, 0, 1500, 1000)),
        (["--region", "300,200,400,300", "--mpp", "0.5"], (300, 200, 700, 500)),
        (["--roi", tmp_path / "roi.geojson"], (100, 50, 400, 250)),
    ):
        assert dragonfly("view", path, "--what", "display", *options, "-o", tmp_path / "seen.png").code == 0
        shown = np.asarray(Image.open(tmp_path / "seen.png")).astype(int)
        assert shown.shape == (bottom - top, right - left, 3)
        assert np.abs(shown - base[top:bottom, left:right]).max() <= 3  # decoders round differently


def test_display_of_a_large_slide_is_refused_before_a_pixel_is_read(tmp_path: Path) -> None:
    path = tmp_path / "large.tif"
    layout = {"tile": (1024, 1024), "photometric": "rgb", "shape": (11_000, 10_000, 3), "dtype": np.uint8}
    tifffile.imwrite(path, (b"broken" for _ in range(110)), compression="jpeg", **layout)
    expect_error(dragonfly("view", path, "--what", "display", "-o", tmp_path / "seen.png"), 2, "10000 x 11000")
    assert not (tmp_path / "seen.png").exists()


@pytest.mark.parametrize("profile", [ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes(), SECRET * 20])
def test_a_picture_of_the_display_holds_pixels_and_nothing_else(tmp_path: Path, profile: bytes) -> None:
    """A profile of the file may name whoever somebody wrote there, and would go with the picture."""
    Image.new("RGB", (40, 30), "red").save(tmp_path / "a.jpg", icc_profile=profile, comment=SECRET)
    assert dragonfly("view", tmp_path / "a.jpg", "--what", "display", "-o", tmp_path / "seen.png").code == 0
    content, at, chunks = (tmp_path / "seen.png").read_bytes(), 8, []
    while at < len(content):
        length, kind = struct.unpack(">I4s", content[at : at + 8])
        chunks.append(kind)
        at += length + 12
    assert chunks == [b"IHDR", b"IDAT", b"IEND"]


def test_view_tells_what_is_not_as_it_was_asked_for(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", (600, 400))
    outcome = dragonfly("view", path, "--region", "400,300,500,500", "-o", tmp_path / "seen.png")
    assert outcome.code == 0
    assert outcome.stderr.startswith("warning: --region 400,300,500,500 reaches beyond the image")


def test_view_needs_no_weights(tmp_path: Path) -> None:
    model = tmp_path / "model"
    model.mkdir()
    (model / "config.json").write_text(
        json.dumps({"model_type": "dragonfly", "image_encoder": "openai/clip-vit-large-patch14-336"})
    )
    write_png(tmp_path / "photo.png")
    assert dragonfly("view", tmp_path / "photo.png", "-m", model, "-o", tmp_path / "seen.png").code == 0
    assert Image.open(tmp_path / "seen.png").width == 6 * 336 + 5 * GAP


def test_a_picture_is_a_png_in_a_file_or_on_stdout(tmp_path: Path) -> None:
    photo, drawn = write_png(tmp_path / "photo.png"), tmp_path / "seen.png"
    assert dragonfly("view", photo, "-o", drawn).code == 0
    command = [sys.executable, "-m", "dragonfly_cli", "view", photo, "-o", "-"]
    told = subprocess.run(command, capture_output=True, check=True, cwd=tmp_path)
    assert told.stdout == drawn.read_bytes()
    for name in ("seen.jpg", "seen.tiff", "seen.pdf"):
        expect_error(dragonfly("view", photo, "-o", tmp_path / name), 2, name, "PNG")
        expect_error(dragonfly("ask", photo, "Is it?", "--overlay", tmp_path / name), 2, name, "PNG")
    assert sorted(tmp_path.iterdir()) == [photo, drawn]


def test_what_is_written_to_files_only_is_not_written_to_one_called_dash(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    photo = write_png(tmp_path / "photo.png")
    for option in ("--geojson", "--overlay"):
        expect_error(dragonfly("ask", photo, "Is it?", option, "-"), 2, "- is stdout")
    assert list(tmp_path.iterdir()) == [photo]


def test_a_picture_that_cannot_be_drawn_leaves_nothing(tmp_path: Path) -> None:
    (tmp_path / "cut.jpg").write_bytes(b"\xff\xd8\xff\xe0 and no more")
    expect_error(dragonfly("view", tmp_path / "cut.jpg", "-o", tmp_path / "seen.png"), 4, "cut.jpg")
    write_png(tmp_path / "photo.png")
    expect_error(dragonfly("view", tmp_path / "photo.png", "-o", tmp_path / "no" / "seen.png"), 7, "seen.png")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["cut.jpg", "photo.png"]


def test_info_of_a_slide(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", (2000, 1500))
    facts = dragonfly("info", path, "--json").json
    assert (facts["kind"], facts["format"], facts["width"], facts["height"]) == ("slide", "aperio", 2000, 1500)
    assert facts["mpp"] == [0.5, 0.5]
    assert [level["width"] for level in facts["levels"]] == [2000, 500]
    text = dragonfly("info", path).stdout
    assert "aperio" in text
    assert "0.5, 0.5" in text


def test_slide_mpp_stands_above_the_file_s(tmp_path: Path) -> None:
    path = write_svs(tmp_path / "slide.svs", (600, 400))
    facts = dragonfly("info", path, "--slide-mpp", "0.25", "--json").json
    assert facts["mpp"] == [0.25, 0.25]
    assert facts["mpp_source"] == "option"


def test_crops_of_a_picture_in_memory_fill_the_sheet() -> None:
    image = Image.new("RGB", (112, 112), "red")
    plan = DragonflyProcessor.from_pretrained(find_checkpoint("demo").folder).plan(image.size)
    sheet = np.asarray(crops_picture(draw_canvases(image, plan), plan))
    red = (sheet == (255, 0, 0)).all(-1).sum()
    assert red == 29 * 112 * 112


def test_info_has_a_line_for_every_fact_whatever_the_name_of_the_file(tmp_path: Path) -> None:
    plain, odd = (write_png(tmp_path / name, (30, 20), "red") for name in ("a b.png", "a\nb.png"))
    assert dragonfly("info", odd).stdout == dragonfly("info", plain).stdout


def test_info_speaks_as_a_user_does(tmp_path: Path) -> None:
    for number in range(2):
        pixels = np.full((20, 20), number, np.uint16)
        write_dicom(tmp_path / f"{number}.dcm", pixels, InstanceNumber=number, SeriesInstanceUID="1.2.3")
    assert dragonfly("info", tmp_path, "--json").json["series"][0]["localizer"] is False
    assert dragonfly("info", tmp_path).stdout.count("localizer no\n") == 1
