"""Where of a slide is looked: tissue, regions, outlines, the grid and the search; geometry before pixels."""

import json
import math
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import shapely
import tifffile
from hypothesis import given
from hypothesis import strategies as st
from make_files import tissue_like, write_png, write_svs
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import field_mpp, plan_looks
from dragonfly_cli.fields.background import ground_of
from dragonfly_cli.fields.grid import Grid, spread_cells
from dragonfly_cli.fields.outline import Outlined
from dragonfly_cli.fields.search import CELLS_PER_FIELD, GLANCES_PER_FIELD, ZoomSearch
from dragonfly_cli.fields.tissue import Tissue, find_tissue, mask_of
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import open_source

CANVAS_WH = (672, 448)
GLASS, PINK = (244, 244, 244), (205, 120, 170)


def tissue_of(pixels, pixel_um2=100.0):
    rows, columns = pixels.shape[:2]
    return Tissue(*mask_of(pixels, ground_of(pixels), pixel_um2, (columns * 10, rows * 10)))


def painted(*boxes, size=(300, 400), colour=PINK):
    pixels = np.full((*size, 3), GLASS, np.uint8)
    for left, top, right, bottom in boxes:
        pixels[top:bottom, left:right] = colour
    return pixels


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


@pytest.mark.parametrize("ink", [(20, 140, 60), (30, 90, 200), (15, 15, 15)])
def test_ink_is_left_out_and_reported(ink):
    pixels = painted((100, 50, 300, 250))
    pixels[260:280, 50:350] = ink
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


@given(st.integers(1, 200_000), st.integers(1, 200_000), st.integers(1, 60), st.integers(1, 60))
def test_an_outline_of_everything_is_tissue_where_everything_is(width, height, columns, rows):
    tissue = Tissue(np.ones((rows, columns), bool), (width, height), found=True)
    assert Outlined(tissue, shapely.box(0, 0, width, height)).tissue_share == pytest.approx(1)


class Everywhere:
    """An area without an end."""

    def __init__(self, bounds):
        self.bounds = bounds
        self.pieces = [bounds]

    def share(self, box):
        return 1.0


grids = st.builds(
    lambda width, height, field_w, field_h: Grid(
        Everywhere(Box(7, 5, width, height)), Box(7, 5, width, height), (field_w, field_h)
    ),
    *(st.integers(100, 60_000),) * 2,
    st.integers(2000, 5000),
    st.integers(1500, 4000),
)


@given(grids)
def test_the_cells_cover_the_bounds_without_overlap(grid):
    boxes = [grid.box(cell) for cell in grid.cells()]
    left, top = min(box.x for box in boxes), min(box.y for box in boxes)
    right, bottom = max(box.x + box.width for box in boxes), max(box.y + box.height for box in boxes)
    assert left <= grid.bounds.x and top <= grid.bounds.y
    assert right >= grid.bounds.x + grid.bounds.width and bottom >= grid.bounds.y + grid.bounds.height
    assert len(set(boxes)) == len(boxes) == (right - left) * (bottom - top) // (boxes[0].width * boxes[0].height)


@given(grids, st.integers(1, 3))
def test_a_coarse_cell_is_made_of_its_children(grid, power):
    children = [child for cell in grid.cells(power) for child in grid.children(cell, power)]
    assert sorted(children) == sorted(grid.cells(power - 1))
    for cell in grid.cells(power):
        outer = grid.box(cell, power)
        for child in grid.children(cell, power):
            inner = grid.box(child, power - 1)
            assert outer.x <= inner.x and inner.x + inner.width <= outer.x + outer.width
            assert outer.y <= inner.y and inner.y + inner.height <= outer.y + outer.height


@given(st.integers(0, 100), st.integers(0, 230), st.integers(15, 40))
def test_a_small_piece_of_tissue_by_itself_is_not_left_out(left, top, side):
    """Pieces of less than a fifth of a field, beside a large one."""
    tissue = tissue_of(painted((200, 20, 390, 280), (left, top, left + side, top + side)))
    grid = Grid(tissue, tissue.bounds, (1000, 800))
    piece = Box(left * 10, top * 10, side * 10, side * 10)
    assert any(grid.box(cell).meets(piece) for cell in grid.cells())


@given(st.integers(1, 20), st.integers(1, 20), st.integers(1, 30))
def test_spread_cells_are_distinct_and_far_apart(columns, rows, most):
    cells = dict.fromkeys(((column, row) for column in range(columns) for row in range(rows)), 1.0)
    chosen = spread_cells(cells, most)
    assert len(set(chosen)) == len(chosen) == min(most, columns * rows)
    if len(chosen) == 4 and columns > 8 and rows > 8:
        assert min(math.dist(a, b) for a in chosen for b in chosen if a != b) > 4


class Seen:
    """Glances with one reason to look closer for each lesion, which is the only thing that it sees."""

    def __init__(self, *lesions):
        self.lesions, self.boxes = lesions, []

    def take(self, boxes):
        self.boxes += boxes

    def worths(self, boxes):
        assert set(boxes) <= set(self.boxes)
        return [[float(box.meets(lesion)) for box in boxes] for lesion in self.lesions]


@given(grids, st.integers(2, 12), st.randoms(use_true_random=False))
def test_a_search_finds_what_either_reason_sees_with_few_glances(grid, fields, random):
    lesions = [grid.box(random.choice(sorted(grid.cells()))) for _ in range(2)]
    search, seen = ZoomSearch(grid, fields), Seen(*lesions)
    found = search.best(seen)
    assert len(set(found)) == len(found) == min(fields, len(grid.cells()))
    assert set(lesions) <= set(found)
    assert len(set(seen.boxes)) == len(seen.boxes) <= fields * (GLANCES_PER_FIELD + 2 * CELLS_PER_FIELD * search.power)


class Overshadowed:
    """Glances that tell a lesion at the scale of fields; at a coarser one so many cells look more worthwhile."""

    def __init__(self, lesion, field, others):
        self.lesion, self.field, self.others = lesion, field, others

    def take(self, boxes):
        pass

    def worths(self, boxes):
        if boxes[0].size_wh == self.field.size_wh:
            return [[float(box.meets(self.lesion)) for box in boxes]]
        louder = [box for box in boxes if not box.meets(self.lesion)][: self.others]
        return [[2.0 if box in louder else float(box.meets(self.lesion)) for box in boxes]]


@given(st.integers(2, 8), st.randoms(use_true_random=False))
def test_what_others_overshadow_at_a_coarse_scale_is_found_none_the_less(fields, random):
    bounds = Box(0, 0, 16_000, 16_000)
    grid = Grid(Everywhere(bounds), bounds, CANVAS_WH)
    lesion = grid.box(random.choice(sorted(grid.cells())))
    search, room = ZoomSearch(grid, fields), fields * CELLS_PER_FIELD
    assert search.power > 0
    assert lesion in search.best(Overshadowed(lesion, lesion, room - 1))
    assert lesion not in search.best(Overshadowed(lesion, lesion, room))


def test_its_cost_follows_the_budget_and_hardly_the_slide():
    glances = {}
    for side in (12_000, 24_000, 48_000, 96_000):
        grid = Grid(Everywhere(Box(0, 0, side, side)), Box(0, 0, side, side), CANVAS_WH)
        seen = Seen(grid.box((3, 3)))
        assert grid.box((3, 3)) in ZoomSearch(grid, 7).best(seen)
        glances[side] = len(seen.boxes)
    assert glances[96_000] <= 2 * glances[12_000] and glances[12_000] / 29 + 8 < 0.05 * 18 * 27


def test_a_search_that_is_late_still_gives_its_fields():
    grid = Grid(Everywhere(Box(0, 0, 20_000, 20_000)), Box(0, 0, 20_000, 20_000), (1000, 1000))
    seen = Seen(Box(0, 0, 1, 1))
    found = ZoomSearch(grid, 5, deadline=0.0).best(seen)
    assert len(set(found)) == 5 and len(seen.boxes) <= 2 * 32  # one round at each of at most two scales


@pytest.fixture(scope="module")
def slide(tmp_path_factory) -> Path:
    """4000 x 3000 px at 0.5 microns per pixel, tissue in the middle."""
    return write_svs(tmp_path_factory.mktemp("slides") / "slide.svs", (4000, 3000))


def plan(path, **looking):
    return plan_looks(open_source(path), LookOptions(**looking), CANVAS_WH)


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


def test_a_slide_that_fits_one_field_is_one_field(tmp_path):
    path = write_svs(tmp_path / "small.svs", (600, 400), downsamples=())
    assert [(field.role, field.box) for field in plan(path).fields] == [("overview", Box(0, 0, 600, 400))]


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


def test_a_region_with_a_scale_is_searched(slide):
    first, *zooms = plan(slide, region=["1000,500,2000,1500"], mpp=0.5).fields
    assert first.box == Box(1000, 500, 2000, 1500) and len(zooms) == 7
    assert all(field.box.meets(first.box) for field in zooms)


def test_no_region_is_left_out_for_the_budget_and_what_is_left_out_is_told(slide):
    source = open_source(slide)
    regions = ["500,500,2000,1500", "2000,1000,1500,900", "100,100,900,900"]
    planned = plan_looks(source, LookOptions(region=regions, mpp=0.5, budget=2), CANVAS_WH)
    assert [field.box.size_wh for field in planned.fields] == [(2000, 1500), (1500, 900), (900, 900)]
    assert any("--budget 2: none of" in warning for warning in source.warnings)


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
    (field,) = plan_looks(source, LookOptions(region=["10,20,100,50"])).fields
    assert (field.role, field.box) == ("region", Box(10, 20, 100, 50))
    with pytest.raises(UsageError, match="not a slide"):
        plan_looks(source, LookOptions(mpp=0.5))


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


def test_an_outline_is_searched_and_its_hole_is_not(slide, roi):
    first, *zooms = plan(slide, roi=roi, roi_class=["tumor"], budget=40).fields
    assert (first.role, first.box) == ("region", Box(800, 600, 2400, 1800))
    assert zooms and not any(
        f.box.x >= 1400 and f.box.x + 672 <= 3000 and f.box.y >= 900 and f.box.y + 448 <= 2300 for f in zooms
    )


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


def test_a_blurred_slide_is_told(tmp_path):
    pixels = tissue_like((2000, 1500))
    smooth = np.where(pixels < 240, np.uint8(150), pixels)
    source = open_source(write_svs(tmp_path / "a.svs", pixels=smooth))
    plan_looks(source, LookOptions(), CANVAS_WH)
    assert any("out of focus" in warning for warning in source.warnings)
