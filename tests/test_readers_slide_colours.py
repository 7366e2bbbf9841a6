"""TIFF slides of every kind of samples look as they are meant, whichever library reads them; never a wrong page."""

import numpy as np
import pytest
import tifffile
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import open_source, slide_tiff

LAYOUTS = [{"tile": (128, 128)}, {"rowsperstrip": 64}]  # OpenSlide reads the first, tifffile the second
ORIENTATION, MAX_SAMPLE_VALUE = 274, 281  # TIFF tags


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(slide_tiff, "SMALLEST_PIXELS", 10_000)


@pytest.fixture(scope="module")
def colours():
    """Every hue and brightness, smoothly, [250, 300, 3]."""
    coarse = np.random.default_rng(5).integers(0, 256, (5, 6, 3), dtype=np.uint8)
    return np.asarray(Image.fromarray(coarse).resize((300, 250)))


def whole(path):
    source = open_source(path)
    assert source.kind == "slide"
    return np.asarray(source.view(Box(0, 0, *source.size_wh)).resize(source.size_wh)).astype(int)


def as_palette(colours):
    image = Image.fromarray(colours).quantize(64)
    table = np.zeros((3, 256), np.uint16)
    entries = np.array(image.getpalette()).reshape(-1, 3)
    table[:, : len(entries)] = entries.T.astype(np.uint16) * 257
    return np.asarray(image), {"photometric": "palette", "colormap": table}, np.asarray(image.convert("RGB"))


def with_hole(colours, kind):
    """Transparent in one corner, where it is black or coloured underneath; white is what shall be seen there."""
    opacity = np.full((*colours.shape[:2], 1), 255, np.uint8)
    opacity[:90, :70] = 0
    stored = np.concatenate([colours, opacity], axis=-1)
    if kind == "assocalpha":
        stored[:90, :70] = 0
    return stored, {"photometric": "rgb", "extrasamples": [kind]}, np.where(opacity == 0, 255, colours)


def grey_of_bits(colours, bits):
    largest = 2**bits - 1
    stored = (colours[..., 0].astype(int) * (largest + 1) // 256).astype(np.uint8 if bits <= 8 else np.uint16)
    seen = (stored.astype(int) * 255 // largest)[..., None].repeat(3, axis=-1)
    return stored.astype(bool) if bits == 1 else stored, {"photometric": "minisblack", "bitspersample": bits}, seen


def as_old_palette(colours):
    """Its entries have 8 bits, where TIFF wants 16; believed, all of them would be black."""
    stored, about, seen = as_palette(colours)
    return stored, about | {"colormap": about["colormap"] >> 8}, seen


KINDS = {
    "old palette": as_old_palette,
    "palette": as_palette,
    "CMYK": lambda pixels: (np.asarray(Image.fromarray(pixels).convert("CMYK")), {"photometric": "separated"}, pixels),
    "planes": lambda pixels: (pixels.transpose(2, 0, 1), {"photometric": "rgb", "planarconfig": "separate"}, pixels),
    "16 bits": lambda pixels: (pixels.astype(np.uint16) * 257, {"photometric": "rgb"}, pixels),
    "12 bits": lambda pixels: grey_of_bits(pixels, 12),
    "4 bits": lambda pixels: grey_of_bits(pixels, 4),
    "1 bit": lambda pixels: grey_of_bits(pixels, 1),
    "transparency": lambda pixels: with_hole(pixels, "unassalpha"),
    "premultiplied": lambda pixels: with_hole(pixels, "assocalpha"),
    "WebP": lambda pixels: (pixels, {"photometric": "rgb", "compression": "webp"}, pixels),
    "JPEG XL": lambda pixels: (pixels, {"photometric": "rgb", "compression": "jpegxl"}, pixels),
}


@pytest.mark.parametrize("kind", ["palette", "old palette"])
def test_a_small_picture_has_the_colours_of_its_palette(tmp_path, monkeypatch, colours, kind):
    monkeypatch.setattr(slide_tiff, "SMALLEST_PIXELS", 10**6)
    stored, about, seen = KINDS[kind](colours)
    tifffile.imwrite(tmp_path / "a.tif", stored, rowsperstrip=64, **about)
    source = open_source(tmp_path / "a.tif")
    assert source.kind == "raster" and np.array_equal(np.asarray(source.view(Box(0, 0, 300, 250))), seen)


def test_colours_that_are_called_grey_are_told(tmp_path, colours):
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="minisblack", planarconfig="contig", tile=(128, 128))
    assert np.array_equal(whole(tmp_path / "a.tif"), colours)
    assert any("calls its samples grey" in warning for warning in open_source(tmp_path / "a.tif").warnings)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["tiles", "strips"])
@pytest.mark.parametrize("kind", KINDS)
def test_samples_are_shown_as_they_are_meant(tmp_path, colours, kind, layout):
    stored, about, seen = KINDS[kind](colours)
    tifffile.imwrite(tmp_path / "a.tif", stored, **about, **layout)
    assert np.abs(whole(tmp_path / "a.tif") - seen).max() <= 1


def written(path, stored, declared, bits=12, **layout):
    """A TIFF of 16 bits that declares fewer, or does not: in an OME header, in a tag, or not at all."""
    about = {"photometric": "rgb" if stored.ndim == 3 else "minisblack", "metadata": None, **layout}
    if declared == "header":
        about["metadata"] = {"axes": "YXS"[: stored.ndim], "SignificantBits": bits}
    if declared == "tag":
        about["extratags"] = [(MAX_SAMPLE_VALUE, "H", stored.shape[-1], [2**bits - 90] * stored.shape[-1], True)]
    tifffile.imwrite(path, stored, **about)
    return path


@pytest.mark.parametrize("layout", LAYOUTS, ids=["tiles", "strips"])
@pytest.mark.parametrize(("bits", "declared"), [(10, "header"), (12, "header"), (14, "tag"), (12, "tag")])
def test_declared_bits_are_shown_over_their_range(tmp_path, colours, layout, bits, declared):
    stored = (colours.astype(np.uint16) << (bits - 8)) - (colours == 255)
    path = written(tmp_path / "a.ome.tif", stored, declared, bits, **layout)
    assert np.abs(whole(path) - colours).max() <= 2
    assert not [line for line in open_source(path).warnings if "black" in line]


def test_declared_bits_are_shown_over_their_range_on_every_level(tmp_path, colours):
    stored = colours.astype(np.uint16) * 16
    about = {"photometric": "rgb", "tile": (64, 64)}
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(stored, subifds=1, metadata={"axes": "YXS", "SignificantBits": 12}, **about)
        tiff.write(np.ascontiguousarray(stored[::2, ::2]), subfiletype=1, **about)
    source = open_source(tmp_path / "a.ome.tif")
    for factor in (1, 2):
        seen = np.asarray(source.view(Box(0, 0, 300, 250)).resize((300 // factor, 250 // factor))).astype(int)
        assert np.abs(seen - colours[::factor, ::factor]).max() <= 1


def test_a_declaration_that_a_sample_exceeds_does_not_hold(tmp_path, colours):
    path = written(tmp_path / "a.ome.tif", colours.astype(np.uint16) * 257, "header", tile=(128, 128))
    assert np.abs(whole(path) - colours).max() <= 1


@pytest.mark.parametrize("layout", [*LAYOUTS, {"tile": (128, 128), "planarconfig": "separate"}])
def test_bits_that_nothing_declares_are_shown_dark_and_told(tmp_path, colours, layout):
    stored = colours.astype(np.uint16) * 16
    if "planarconfig" in layout:
        stored = stored.transpose(2, 0, 1)
    tifffile.imwrite(tmp_path / "a.tif", stored, photometric="rgb", **layout)
    assert whole(tmp_path / "a.tif").max() == 15
    facts = dragonfly("info", tmp_path / "a.tif", "--json").json
    assert "the 16-bit values stay below 4096, so the picture is nearly black" in facts["warnings"]


@pytest.mark.parametrize("declared", ["header", "tag", None])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_a_small_file_is_shown_as_a_large_one_is(tmp_path, monkeypatch, colours, declared, kind):
    stored = (colours[..., 0] if kind == "grey" else colours).astype(np.uint16) * 16
    path = written(tmp_path / "a.ome.tif", stored, declared, rowsperstrip=64)
    as_slide, told = whole(path), open_source(path).warnings
    monkeypatch.setattr(slide_tiff, "SMALLEST_PIXELS", 10**6)
    small = open_source(path)
    assert small.kind == "raster"
    assert np.abs(np.asarray(small.view(Box(0, 0, 300, 250))).astype(int) - as_slide).max() <= 1
    assert len(small.warnings) == len([line for line in told if "nearly black" in line]) == (declared is None)


@pytest.mark.parametrize("layout", LAYOUTS, ids=["tiles", "strips"])
def test_inks_in_jpeg_are_no_colours_of_light(tmp_path, layout):
    pixels = np.full((300, 400, 3), (180, 90, 140), np.uint8)
    inks = np.asarray(Image.fromarray(pixels).convert("CMYK"))
    how = {"compression": "jpeg", "compressionargs": {"level": 98}}
    tifffile.imwrite(tmp_path / "a.tif", inks, photometric="separated", **how, **layout)
    assert np.abs(whole(tmp_path / "a.tif") - pixels).max() <= 3


@pytest.mark.parametrize("photometric", ["ycbcr", "cielab"])
def test_colours_that_are_not_understood_are_refused(tmp_path, colours, photometric):
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric=photometric, rowsperstrip=64)
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif", photometric.upper(), "no grey or colour picture")


@pytest.mark.parametrize(
    ("size", "layout"), [(1, {"tile": (128, 128)}), (1, {"rowsperstrip": 16}), (4, {"rowsperstrip": 16})]
)
def test_samples_in_an_unknown_order_are_refused(tmp_path, colours, size, layout):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.ascontiguousarray(colours[::size, ::size]), photometric="rgb", metadata=None, **layout)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["PlanarConfiguration"].overwrite(3)
    expect_error(dragonfly("info", path), 4, "a.tif")


def test_channels_in_planes_are_no_colours(tmp_path, colours):
    planes = {"photometric": "minisblack", "planarconfig": "separate", "rowsperstrip": 64}
    tifffile.imwrite(tmp_path / "a.tif", colours.transpose(2, 0, 1), **planes)
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif", "MINISBLACK", "no grey or colour picture")


RED, BLUE = (np.full((500, 700, 3), colour, np.uint8) for colour in ((200, 40, 40), (40, 40, 200)))


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
def test_of_pages_of_one_size_the_first_is_shown_and_the_others_are_told(tmp_path, compression):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (RED, BLUE):
            tiff.write(page, photometric="rgb", tile=(128, 128), compression=compression, metadata=None)
            half = np.ascontiguousarray(page[::2, ::2])
            tiff.write(half, photometric="rgb", tile=(128, 128), compression=compression, subfiletype=1, metadata=None)
    source = open_source(tmp_path / "a.tif")
    for size in ((700, 500), (350, 250), (70, 50)):
        seen = np.asarray(source.view(Box(0, 0, 700, 500)).resize(size)).astype(int)
        assert np.abs(seen - RED[0, 0]).mean() < 1
    assert any("only one of 2 channels" in warning for warning in source.warnings)


def test_a_grey_page_of_the_same_size_does_not_take_the_place_of_the_first(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(RED, photometric="rgb", rowsperstrip=64, metadata=None)
        tiff.write(BLUE[..., 2], photometric="minisblack", rowsperstrip=64, metadata=None)
    assert np.abs(whole(tmp_path / "a.tif") - RED).max() == 0


@pytest.mark.parametrize("layout", LAYOUTS, ids=["tiles", "strips"])
@pytest.mark.parametrize("orientation", [3, 6])
def test_a_turned_picture_is_shown_as_it_is_stored_in_one_piece_and_told(tmp_path, colours, layout, orientation):
    turned = (ORIENTATION, "H", 1, orientation, True)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", extratags=[turned], **layout)
    assert np.abs(whole(tmp_path / "a.tif") - colours).max() == 0
    assert any(f"TIFF orientation {orientation}" in warning for warning in open_source(tmp_path / "a.tif").warnings)


@pytest.mark.parametrize("planarconfig", ["contig", "separate"])
@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_a_slide_that_is_wholly_transparent_is_told(tmp_path, colours, kind, planarconfig):
    """Some programs leave the opacity at 0 above a picture that is there; one pixel with opacity, and they did not."""
    stored = np.concatenate([colours, np.zeros((*colours.shape[:2], 1), np.uint8)], axis=-1)
    about = {"photometric": "rgb", "extrasamples": [kind], "planarconfig": planarconfig, "tile": (64, 64)}
    told = "every pixel is fully transparent, so the picture is shown white"
    for opacity in (0, 255):
        stored[-1, -1, 3] = opacity
        planes = stored.transpose(2, 0, 1) if planarconfig == "separate" else stored
        tifffile.imwrite(tmp_path / "a.tif", planes, **about)
        assert (told in dragonfly("info", tmp_path / "a.tif", "--json").json["warnings"]) == (opacity == 0)


def test_a_tile_that_was_left_out_is_white(tmp_path, colours):
    path = tmp_path / "a.tif"
    planes = colours.transpose(2, 0, 1)
    tifffile.imwrite(path, planes, photometric="rgb", planarconfig="separate", tile=(128, 128), compression="zlib")
    with tifffile.TiffFile(path, mode="r+") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite([0, *counts.value[1:]])  # of red alone
    seen = np.asarray(slide_tiff.TiffPyramid(path).read(0, Box(0, 0, 300, 250)))
    assert (seen[:128, :128] == 255).all() and np.array_equal(seen[:, 128:], colours[:, 128:])


def test_a_picture_of_no_tiles_is_refused(tmp_path, colours):
    """It would be white from edge to edge."""
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", rowsperstrip=64)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        counts = tiff.pages[0].tags["StripByteCounts"]
        counts.overwrite([0] * len(counts.value))
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif", "its table of pixel data is empty")
