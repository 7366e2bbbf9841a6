"""Slides: a planted square is where it should be at any box and size, overviews stay cheap, errors stay clean."""

import csv
import math
from concurrent.futures import ThreadPoolExecutor
from io import BytesIO

import numpy as np
import openslide
import pytest
import tifffile
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from make_files import SHARED_DATA, write_dicom, write_svs
from PIL import Image
from run_dragonfly import dragonfly

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source, slide_openslide
from dragonfly_cli.readers import pyramid as pyramid_module
from dragonfly_cli.readers import slide as slide_module
from dragonfly_cli.readers.jpeg_damage import is_damaged
from dragonfly_cli.readers.pyramid import plan_blocks, plan_read, plan_strips

SLIDE_WH = (1200, 900)
SQUARE = Box(512, 384, 160, 160)
DOWNSAMPLES = (1.0, 4.0161, 16.07, 32.3)

boxes = st.builds(Box, *(st.integers(-500, 60_000) for _ in "xy"), *(st.integers(1, 50_000) for _ in "wh"))
sizes = st.tuples(st.integers(1, 1500), st.integers(1, 1500))


@pytest.fixture(scope="module")
def planted(tmp_path_factory):
    """A slide of three levels, white but for one blue square."""
    pixels = np.full((SLIDE_WH[1], SLIDE_WH[0], 3), 255, np.uint8)
    left, top, right, bottom = SQUARE.corners
    pixels[top:bottom, left:right] = (0, 0, 255)
    path = tmp_path_factory.mktemp("slides") / "planted.svs"
    source = open_source(write_svs(path, pixels=pixels, downsamples=(2, 8), quality=95))
    yield source
    source.close()


class LevelSpy:
    """Counts the pixels that are read of each level."""

    def __init__(self, monkeypatch):
        self.pixels = {}
        original = openslide.OpenSlide.read_region

        def read_region(slide, location, level, size):
            self.pixels[level] = self.pixels.get(level, 0) + size[0] * size[1]
            return original(slide, location, level, size)

        monkeypatch.setattr(openslide.OpenSlide, "read_region", read_region)


def test_a_slide_says_what_it_is(planted):
    assert (planted.kind, planted.format, planted.frames) == ("slide", "aperio", 1)
    assert (planted.size_wh, planted.mpp, planted.mpp_source) == (SLIDE_WH, (0.5, 0.5), "file")
    details = planted.details()
    assert [level["width"] for level in details["levels"]] == [1200, 600, 150]
    assert details["objective_power"] == 20 and len(details["quickhash"]) == 64


def test_the_scale_may_be_given_and_its_absence_is_reported(tmp_path):
    path = write_svs(tmp_path / "a.svs", (300, 200), mpp=None, downsamples=())
    source = open_source(path)
    assert source.mpp is None and source.mpp_source == "none" and "microns per pixel" in source.warnings[0]
    source = open_source(path, OpenOptions(slide_mpp=0.25))
    assert (source.mpp, source.mpp_source, source.warnings) == ((0.25, 0.25), "option", [])


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    x=st.integers(-20, 500),
    y=st.integers(-40, 370),
    width=st.integers(700, 1600),
    height=st.integers(600, 1600),
    size=st.tuples(st.integers(60, 900), st.integers(60, 900)),
)
@example(x=0, y=0, width=1200, height=900, size=(1200, 900))
@example(x=-100, y=-100, width=1400, height=1100, size=(224, 224))
def test_the_square_is_found_at_the_right_place(planted, x, y, width, height, size):
    box = Box(x, y, width, height)
    image = planted.view(box).resize(size)
    assert image.size == size and image.mode == "RGB"
    blue = np.asarray(image.convert("L")) < 142  # by brightness: JPEG keeps colour at half the resolution
    rows, columns = np.nonzero(blue)
    left, top, right, bottom = SQUARE.shifted(-x, -y).corners
    scale_x, scale_y = size[0] / width, size[1] / height
    found = columns.min(), rows.min(), columns.max() + 1, rows.max() + 1
    wanted = left * scale_x, top * scale_y, right * scale_x, bottom * scale_y
    assert np.abs(np.subtract(found, wanted)).max() < 1.5


def test_a_view_at_its_own_size_is_the_level_itself(planted):
    box = Box(500, 380, 64, 48)
    assert planted.view(box).size == (64, 48)
    with openslide.OpenSlide(planted.path) as slide:
        expected = slide.read_region((500, 380), 0, (64, 48)).convert("RGB")
    assert planted.view(box).resize((64, 48)).tobytes() == expected.tobytes()


def test_enlarging_reads_level_0_and_equals_pillow(planted):
    box = Box(500, 380, 60, 40)
    with openslide.OpenSlide(planted.path) as slide:
        pixels = slide.read_region((500, 380), 0, (60, 40)).convert("RGB")
    wide = pixels.resize((150, 40), Image.Resampling.BICUBIC)
    expected = wide.resize((150, 130), Image.Resampling.BICUBIC)
    assert planted.view(box).resize((150, 130)).tobytes() == expected.tobytes()


def test_outside_the_slide_is_white(planted):
    image = planted.view(Box(-300, -300, 290, 290)).resize((50, 50))
    assert image.getextrema() == ((255, 255),) * 3


@pytest.fixture
def undirected(planted, monkeypatch):
    """The planted slide through OpenSlide alone."""
    monkeypatch.setattr(slide_openslide, "direct_levels", lambda *about: {})
    return open_source(planted.path)


def test_an_overview_reads_no_level_0(undirected, monkeypatch):
    planted = undirected
    spy = LevelSpy(monkeypatch)
    planted.view(Box(0, 0, *SLIDE_WH)).resize((112, 84))
    assert set(spy.pixels) == {2}
    planted.view(Box(0, 0, *SLIDE_WH)).resize((500, 375))
    assert set(spy.pixels) == {1, 2}
    planted.view(Box(100, 100, 50, 50)).resize((50, 50))
    assert spy.pixels[0] == 2500


def test_a_slide_of_one_level_is_read_in_blocks_and_looks_the_same(tmp_path, monkeypatch):
    path = write_svs(tmp_path / "one.svs", (1500, 1100), downsamples=())
    view = open_source(path).view(Box(-40, 10, 1500, 1080))
    at_once = np.asarray(view.resize((40, 30))).astype(int)
    monkeypatch.setattr(pyramid_module, "MAX_REGION_PIXELS", 20_000)
    monkeypatch.setattr(pyramid_module, "BLOCK_SIDE_PX", 128)
    monkeypatch.setattr(slide_openslide, "direct_levels", lambda *about: {})
    spy = LevelSpy(monkeypatch)
    source = open_source(path)
    in_blocks = np.asarray(source.view(Box(-40, 10, 1500, 1080)).resize((40, 30))).astype(int)
    assert spy.pixels == {0: 1500 * 1100}
    assert np.abs(in_blocks - at_once).mean() < 1.5 and np.abs(in_blocks - at_once).max() < 25
    source.view(Box(0, 0, 1500, 1100)).resize((20, 15))
    assert spy.pixels == {0: 1500 * 1100}  # no other view of it costs another reading
    source.view(Box(100, 100, 600, 500)).resize((10, 10))
    assert spy.pixels == {0: 1500 * 1100 + 600 * 500}  # a small part is read by itself


def test_an_overview_shows_the_square_where_it_is_and_white_outside(tmp_path, monkeypatch):
    pixels = np.full((1000, 1400, 3), 255, np.uint8)
    pixels[700:830, 1000:1200] = (0, 0, 255)
    path = write_svs(tmp_path / "one.svs", pixels=pixels, downsamples=(), quality=95)
    monkeypatch.setattr(pyramid_module, "MAX_REGION_PIXELS", 60_000)  # averaged by 5
    source = open_source(path)
    for left, top, width, height in ((0, 0, 1400, 1000), (300, 250, 1300, 900), (-200, -100, 1600, 1100)):
        shown = np.asarray(source.view(Box(left, top, width, height)).resize((width // 10, height // 10)))
        dark = shown[..., 0] < 128
        rows, columns = np.nonzero(dark)
        edges = [columns.min() * 10 + left, rows.min() * 10 + top]
        edges += [(columns.max() + 1) * 10 + left, (rows.max() + 1) * 10 + top]
        assert edges == [1000, 700, 1200, 830] and dark.sum() == 20 * 13
        assert (shown[0] > 250).all() and (shown[:, 0] > 250).all() and (shown[:, -1] > 250).all()


@given(box=boxes, size=sizes)
def test_the_plan_covers_the_box_at_enough_resolution(box, size):
    plan = plan_read(DOWNSAMPLES, box, size)
    scale = plan.downsample
    left, top, right, bottom = plan.box
    assert 0 <= left < right <= plan.region.width and 0 <= top < bottom <= plan.region.height
    assert math.isclose((plan.region.x + left) * scale, box.x, abs_tol=1e-3 * scale)
    assert math.isclose((plan.region.y + bottom) * scale, box.y + box.height, abs_tol=1e-3 * scale)
    wanted = min(box.width / size[0], box.height / size[1])
    assert scale <= wanted * 1.01 or scale == 1
    coarser = [other for other in DOWNSAMPLES if other > scale]
    assert not coarser or min(coarser) > wanted


@given(
    box=boxes,
    factors=st.tuples(st.integers(1, 9), st.integers(1, 9)),
    tile_wh=st.tuples(st.integers(1, 60_000), st.integers(1, 3000)),
)
@settings(max_examples=30)
def test_blocks_tile_the_region(box, factors, tile_wh):
    strips = plan_strips(box, factors, tile_wh)
    blocks = [block for strip in strips for block in plan_blocks(strip, factors[0], tile_wh)]
    assert sum(block.width * block.height for block in blocks) == box.width * box.height
    assert all((block.x - box.x) % factors[0] == 0 and (block.y - box.y) % factors[1] == 0 for block in blocks)
    assert max(block.width * block.height for block in blocks) <= pyramid_module.BLOCK_SIDE_PX**2


@given(box=boxes, tile_rows=st.integers(1, 1024))
def test_strips_are_cut_between_tiles(box, tile_rows):
    _, *later = plan_strips(box, (1, 1), (256, tile_rows))
    if box.height > pyramid_module.BLOCK_SIDE_PX and tile_rows <= 256:
        assert later and all(strip.y % tile_rows == 0 for strip in later)


@pytest.mark.parametrize(
    ("box", "size"), [(Box(0, 0, 2000, 1500), (300, 200)), (Box(-70, 333, 1111, 800), (1111, 400))]
)
def test_strips_give_the_pixels_of_one_piece(planted, monkeypatch, box, size):
    in_one_piece = planted.view(box).resize(size)
    monkeypatch.setattr(slide_module, "KEPT_PIXELS", 0)
    monkeypatch.setattr(pyramid_module, "BLOCK_SIDE_PX", 96)
    monkeypatch.setattr(pyramid_module, "STRIP_ROWS", 40)
    assert planted.view(box).resize(size).tobytes() == in_one_piece.tobytes()


def test_label_and_macro_are_never_opened(planted, monkeypatch):
    def refuse(*args):
        raise AssertionError("an associated image was opened")

    monkeypatch.setattr(openslide.OpenSlide, "associated_images", property(refuse))
    open_source(planted.path).view(Box(0, 0, 100, 100)).resize((10, 10))


@pytest.fixture(params=["openslide", "direct"])
def way(request, monkeypatch):
    """Through OpenSlide alone, or with JPEG tiles decoded directly."""
    if request.param == "openslide":
        monkeypatch.setattr(slide_openslide, "direct_levels", lambda *about: {})
    return request.param


def spoil_tile(path, number):
    """Overwrites the beginning of a tile of level 0, the tiles counted row by row."""
    with tifffile.TiffFile(path) as tiff:
        offset = tiff.pages[0].dataoffsets[number]
    with path.open("r+b") as file:
        file.seek(offset)
        file.write(b"\0" * 40)


def test_a_bad_tile_costs_that_tile(tmp_path, way):
    path = write_svs(tmp_path / "a.svs", (1280, 1100), downsamples=())
    sound = np.asarray(open_source(path).view(Box(0, 0, 1280, 1100)).resize((1280, 1100)))
    spoil_tile(path, 7)  # column 2, row 1
    source = open_source(path)
    seen = np.asarray(source.view(Box(0, 0, 1280, 1100)).resize((1280, 1100)))
    differs = np.nonzero((seen != sound).any(axis=-1))
    assert (differs[0].min(), differs[0].max(), differs[1].min(), differs[1].max()) == (256, 511, 512, 767)
    assert (seen[256:512, 512:768] == 255).all()
    assert source.warnings == [
        "these tiles of the slide are shown white, because they are damaged: level 0, column 2, row 1"
    ]


@pytest.mark.parametrize("lost", [bytes(512), bytes(range(256)) * 2, b"\xff" * 512], ids=["zeros", "other", "ones"])
def test_a_tile_that_lost_a_block_of_the_disk_is_told(tmp_path, lost):
    """Decoders show grey or other colours from there on, without a word."""
    path = write_svs(tmp_path / "a.svs", (1280, 1100), downsamples=())
    with tifffile.TiffFile(path) as tiff:
        middle = tiff.pages[0].dataoffsets[7] + tiff.pages[0].databytecounts[7] // 2
    with path.open("r+b") as file:
        file.seek(middle)
        file.write(lost)
    source = open_source(path)
    seen = np.asarray(source.view(Box(512, 256, 256, 256)).resize((256, 256)))
    assert (seen == 255).all()
    assert source.warnings == [
        "these tiles of the slide are shown white, because they are damaged: level 0, column 2, row 1"
    ]


@pytest.mark.parametrize("is_aperio", [True, False])
def test_a_tile_without_data_is_told_and_costs_no_level(tmp_path, monkeypatch, is_aperio):
    """On a coarser level OpenSlide fills it from a finer one."""
    path = write_svs(tmp_path / "a.svs", (1280, 1100), downsamples=(2, 4))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for page, number in ((0, 7), (2, 1)):
            counts = tiff.pages[page].tags["TileByteCounts"]
            counts.overwrite([count * (each != number) for each, count in enumerate(counts.value)])
        if not is_aperio:
            tiff.pages[0].tags["ImageDescription"].overwrite("")
    source, box = open_source(path), Box(0, 0, 1280, 1100)
    assert [level["downsample"] for level in source.details()["levels"]] == [1, 2, 4]
    seen = [np.asarray(source.view(box).resize(size)) for size in ((1280, 1100), (640, 550))]
    assert (seen[0][256:512, 512:768] == 255).all() and np.ptp(seen[0][:256]) and np.ptp(seen[0][:, :512])
    assert source.warnings[0] == "1 of 25 tiles hold no data and are shown white"
    assert not any("another picture" in warning or "damaged" in warning for warning in source.warnings)
    if is_aperio:
        monkeypatch.setattr(slide_openslide, "direct_levels", lambda *about: {})
        openslides = np.asarray(open_source(path).view(box).resize((640, 550)))
        assert np.abs(openslides.astype(int) - seen[1]).max() <= 1


@pytest.mark.parametrize("is_aperio", [True, False])
def test_a_tile_that_ends_early_is_told(tmp_path, is_aperio):
    path = write_svs(tmp_path / "a.svs", (1280, 1100), downsamples=())
    with tifffile.TiffFile(path, mode="r+") as tiff:
        counts = tiff.pages[0].tags["TileByteCounts"]
        counts.overwrite([count // (2 if number == 7 else 1) for number, count in enumerate(counts.value)])
        if not is_aperio:
            tiff.pages[0].tags["ImageDescription"].overwrite("")
    source = open_source(path)
    seen = np.asarray(source.view(Box(512, 256, 256, 256)).resize((256, 256)))
    assert source.format == ("aperio" if is_aperio else "tiff") and (seen == 255).all()
    assert source.warnings[-1].endswith("because they are damaged: level 0, column 2, row 1")


@pytest.mark.parametrize("quality", [20, 75, 100])
@pytest.mark.parametrize("encoding", [{}, {"optimize": True}, {"progressive": True}, {"restart_marker_blocks": 3}])
def test_a_sound_jpeg_is_never_taken_for_damaged(quality, encoding):
    rng = np.random.default_rng(0)
    noise, glass = rng.integers(0, 256, (256, 256, 3), np.uint8), np.full((256, 256, 3), 244, np.uint8)
    mixed = np.where(np.arange(256)[:, None, None] < 100, noise, glass)
    for pixels in (noise, glass, mixed, noise // 128 * 255, glass * 0, noise[..., 0], glass[..., 0]):
        packed = BytesIO()
        Image.fromarray(pixels).save(packed, "JPEG", quality=quality, **encoding)
        assert not is_damaged(packed.getvalue() + bytes(3))
        assert is_damaged(packed.getvalue()[:-2])


def test_a_slide_without_a_sound_tile_is_an_error(tmp_path, way):
    path = write_svs(tmp_path / "a.svs", (500, 250), downsamples=())
    spoil_tile(path, 0)
    spoil_tile(path, 1)
    view = open_source(path).view(Box(0, 0, 500, 250))
    for _ in range(2):  # who asks again is not shown white instead
        with pytest.raises(InputError, match=r"a\.svs at level 0: tiles are damaged") as caught:
            view.resize((500, 250))
        assert caught.value.exit_code == 4 and caught.value.hint


def test_a_batch_fails_a_slide_without_a_sound_tile(tmp_path):
    path = write_svs(tmp_path / "a.svs", (500, 250), downsamples=())
    spoil_tile(path, 0)
    spoil_tile(path, 1)
    assert dragonfly("batch", path, "-q", "Is there a tumour?", "-o", tmp_path / "a.csv").code == 8
    with (tmp_path / "a.csv").open(newline="") as table:
        (row,) = csv.DictReader(table)
    assert (row["status"], row["error_code"], row["answer"], row["p_yes"]) == ("failed", "4", "", "")


@pytest.mark.parametrize("box", [Box(0, 0, 1280, 1100), Box(-30, 700, 900, 800), Box(255, 255, 258, 300)])
def test_direct_decoding_gives_openslide_s_pixels(tmp_path, monkeypatch, box):
    rng = np.random.default_rng(3)
    coarse = Image.fromarray(rng.integers(0, 256, (69, 80, 3), dtype=np.uint8))
    path = write_svs(tmp_path / "a.svs", pixels=np.asarray(coarse.resize((1280, 1104))), downsamples=(4,))
    spy = LevelSpy(monkeypatch)
    sizes = [box.size_wh, (box.width // 4, box.height // 4), (100, 80)]
    direct = [open_source(path).view(box).resize(size) for size in sizes]
    assert not spy.pixels
    monkeypatch.setattr(slide_openslide, "direct_levels", lambda *about: {})
    openslides = [open_source(path).view(box).resize(size) for size in sizes]
    assert spy.pixels
    assert [image.tobytes() for image in direct] == [image.tobytes() for image in openslides]


def test_a_slide_that_changes_while_it_is_read_is_told(tmp_path):
    path = write_svs(tmp_path / "a.svs", (600, 500))
    source = open_source(path)
    with path.open("r+b") as file:
        file.truncate(path.stat().st_size // 2)
    with pytest.raises(InputError, match="changed while it was read"):
        source.view(Box(0, 0, 600, 500)).resize((100, 80))


def test_many_threads_see_the_same_pixels(planted):
    boxes = [Box(x, y, 300, 200) for x in range(0, 900, 150) for y in range(0, 600, 150)]
    alone = [planted.view(box).resize((150, 100)).tobytes() for box in boxes]
    with ThreadPoolExecutor(8) as pool:
        together = list(pool.map(lambda box: planted.view(box).resize((150, 100)).tobytes(), boxes * 3))
    assert together == alone * 3


def test_a_slide_has_one_frame(planted):
    with pytest.raises(InputError, match="no frame 1"):
        planted.view(Box(0, 0, 10, 10), 1)


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the real images are not here")
def test_a_real_slide_of_one_level():
    source = open_source(SHARED_DATA / "slides" / "CMU-1-Small-Region.svs")
    assert (source.size_wh, source.mpp) == ((2220, 2967), (0.499, 0.499))
    overview = np.asarray(source.view(Box(0, 0, *source.size_wh)).resize((224, 224)))
    assert 180 < overview.mean() < 230


def test_a_scale_that_is_stated_against_the_file_s_own_is_told(tmp_path):
    path = write_svs(tmp_path / "slide.svs", (600, 400), downsamples=())
    film = write_dicom(tmp_path / "film.dcm", np.zeros((20, 20), np.uint8), PixelSpacing=[0.2, 0.2])
    flat = tmp_path / "flat.tif"
    per_cm = {"resolution": (20_000, 40_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(flat, np.zeros((2500, 2500, 3), np.uint8), tile=(256, 256), photometric="rgb", **per_cm)
    for image, own in ((path, "0.5"), (film, "200"), (flat, "0.5 by 0.25")):
        source = open_source(image, OpenOptions(slide_mpp=0.25))
        assert source.mpp == (0.25, 0.25)
        assert any(f"the file says {own} microns per pixel" in warning for warning in source.warnings)
        source.close()
    same = open_source(path, OpenOptions(slide_mpp=0.499))
    assert not any("--slide-mpp" in warning for warning in same.warnings)
