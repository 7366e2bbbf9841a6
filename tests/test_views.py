"""Geometry of the views for any size of image, and pixels that end up where the geometry says."""

import json
from itertools import pairwise

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from make_files import GOLDEN
from PIL import Image

from dragonfly_med.crops import cut_crops, draw_canvases, normalize, stretch
from dragonfly_med.views import ViewPlan, best_grid, plan_views

ARCHITECTURES = {"dragonfly-v1": 224, "dragonfly-v2": 336}
CROPS = {"dragonfly-v1": 29, "dragonfly-v2": 41}
MIDDLE_GRIDS = {(2, 2), (1, 4), (4, 1)}
HIGH_GRIDS = {
    "dragonfly-v1": {(6, 4), (4, 6), (3, 8), (8, 3), (2, 12), (12, 2)},
    "dragonfly-v2": {(6, 6), (3, 12), (12, 3)},
}

# (width, height): (v1 middle, v1 high, v2 middle, v2 high), columns x rows, as the reference implementation chose them
RECORDED_GRIDS = {
    (896, 224): ((4, 1), (6, 4), (4, 1), (12, 3)),
    (512, 384): ((2, 2), (6, 4), (2, 2), (6, 6)),
    (1500, 1100): ((2, 2), (6, 4), (2, 2), (6, 6)),
    (300, 260): ((2, 2), (6, 4), (2, 2), (6, 6)),
    (160, 40): ((2, 2), (6, 4), (2, 2), (6, 6)),
    (600, 600): ((2, 2), (6, 4), (2, 2), (6, 6)),
    (700, 1400): ((2, 2), (4, 6), (2, 2), (6, 6)),
    (300, 1800): ((1, 4), (2, 12), (1, 4), (3, 12)),
    (600, 1600): ((1, 4), (3, 8), (1, 4), (3, 12)),
    (50, 37): ((2, 2), (6, 4), (2, 2), (6, 6)),
    (1000, 500): ((2, 2), (6, 4), (2, 2), (6, 6)),
    (2000, 500): ((4, 1), (8, 3), (4, 1), (12, 3)),
}

architectures = st.sampled_from(sorted(ARCHITECTURES))
sides_px = st.integers(1, 200_000)  # up to a whole slide
sizes_wh = st.tuples(sides_px, sides_px)


def plan_of(size_wh: tuple[int, int], architecture: str) -> ViewPlan:
    return plan_views(size_wh, ARCHITECTURES[architecture], architecture)


@pytest.mark.parametrize("size_wh", RECORDED_GRIDS)
def test_recorded_grids(size_wh):
    v1, v2 = plan_of(size_wh, "dragonfly-v1"), plan_of(size_wh, "dragonfly-v2")
    assert (v1.middle_grid, v1.high_grid, v2.middle_grid, v2.high_grid) == RECORDED_GRIDS[size_wh]


@given(sizes_wh, architectures)
def test_grids_are_the_trained_ones_and_counts_never_change(size_wh, architecture):
    plan = plan_of(size_wh, architecture)
    assert plan.middle_grid in MIDDLE_GRIDS
    assert plan.high_grid in HIGH_GRIDS[architecture]
    assert plan.crop_count == len(plan.places) == CROPS[architecture]
    assert [place.level for place in plan.places] == ["low"] + ["middle"] * 4 + ["high"] * (CROPS[architecture] - 5)


@given(sizes_wh, architectures)
def test_boxes_tile_the_image_without_gaps(size_wh, architecture):
    plan = plan_of(size_wh, architecture)
    for level in ("low", "middle", "high"):
        places = [place for place in plan.places if place.level == level]
        boxes = [place.box_in(size_wh) for place in places]
        columns = sorted({(left, right) for left, _, right, _ in boxes})
        rows = sorted({(top, bottom) for _, top, _, bottom in boxes})
        for spans, length in ((columns, size_wh[0]), (rows, size_wh[1])):
            assert spans[0][0] == 0 and max(stop for _, stop in spans) == length
            assert all(start <= before for (_, before), (start, _) in pairwise(spans))
        assert {(b[0], b[2], b[1], b[3]) for b in boxes} == {(*column, *row) for column in columns for row in rows}


@given(sizes_wh, architectures)
def test_boxes_are_inside_the_image_and_never_empty(size_wh, architecture):
    for place in plan_of(size_wh, architecture).places:
        left, top, right, bottom = place.box_in(size_wh)
        assert 0 <= left < right <= size_wh[0]
        assert 0 <= top < bottom <= size_wh[1]


@given(st.integers(1, 20), st.integers(1, 20), architectures)
def test_boxes_are_exact_where_the_grid_divides_the_image(wide, high, architecture):
    size_wh = 24 * wide, 24 * high  # every trained grid divides 24
    for place in plan_of(size_wh, architecture).places:
        columns, rows = place.grid
        left, top, right, bottom = place.box_in(size_wh)
        assert (left * columns, top * rows) == (place.column * size_wh[0], place.row * size_wh[1])
        assert ((right - left) * columns, (bottom - top) * rows) == size_wh


@given(st.integers(1, 224), st.integers(1, 224), architectures)
def test_small_pictures_get_the_first_grid_whatever_their_shape(width, height, architecture):
    plan = plan_of((width, height), architecture)
    side = 2 * ARCHITECTURES[architecture]
    # truncation to whole pixels may cost the first canvas a pixel, and then another one can win
    first_holds_all = _scaled_pixels((width, height), (side, side)) >= width * height
    assume(first_holds_all)
    assert plan.middle_grid == (2, 2)
    if architecture == "dragonfly-v2":
        assert plan.high_grid == (6, 6)


@given(sizes_wh, architectures)
def test_no_other_middle_grid_shows_more(size_wh, architecture):
    side = ARCHITECTURES[architecture]
    shown = {
        grid: min(_scaled_pixels(size_wh, (grid[0] * side, grid[1] * side)), size_wh[0] * size_wh[1])
        for grid in MIDDLE_GRIDS
    }
    assert shown[best_grid(size_wh, side, [(2, 2), (1, 4), (4, 1)])] == max(shown.values())


def _scaled_pixels(size_wh: tuple[int, int], canvas_wh: tuple[int, int]) -> int:
    scale = min(canvas_wh[0] / size_wh[0], canvas_wh[1] / size_wh[1])
    return int(size_wh[0] * scale) * int(size_wh[1] * scale)


@given(st.integers(0, 23), sizes_wh, architectures)
def test_high_crops_are_numbered_row_by_row(number, size_wh, architecture):
    plan = plan_of(size_wh, architecture)
    place = plan.high_crop(number)
    assert place.level == "high"
    assert place.row * plan.high_grid[0] + place.column == number


small_images = st.builds(
    lambda seed, width, height: _noise(seed, (width, height)),
    st.integers(0, 2**32 - 1),
    st.integers(1, 300),
    st.integers(1, 300),
)


def _noise(seed: int, size_wh: tuple[int, int]) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    return Image.fromarray(levels)


@settings(max_examples=10)
@given(small_images, architectures)
def test_crops_put_together_again_are_the_canvases(image, architecture):
    plan = plan_of(image.size, architecture)
    canvases = draw_canvases(image, plan)
    crops = cut_crops(canvases, plan)
    assert {(crop.shape, crop.dtype) for crop in crops} == {((plan.side_px, plan.side_px, 3), np.dtype(np.uint8))}
    side, again = plan.side_px, [np.zeros((height, width, 3), np.uint8) for width, height in plan.canvas_sizes]
    level = {"low": 0, "middle": 1, "high": 2}
    for place, crop in zip(plan.places, crops, strict=True):
        y, x = place.row * side, place.column * side
        again[level[place.level]][y : y + side, x : x + side] = crop
    for canvas, pixels in zip(canvases, again, strict=True):
        np.testing.assert_array_equal(np.asarray(canvas), pixels)


@given(st.integers(0, 2**32 - 1), st.integers(1, 6), st.integers(1, 24))
def test_normalize_is_clips_formula(seed, count, side):
    crops = np.random.default_rng(seed).integers(0, 256, (count, side, side, 3), np.uint8)
    mean = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
    std = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)
    scaled = (crops.astype(np.float64) * (1 / 255)).astype(np.float32)
    expected = ((scaled - mean) / std).transpose(0, 3, 1, 2)
    actual = normalize(crops)
    assert actual.dtype == np.float32
    np.testing.assert_array_equal(actual, expected)


def test_normalize_knows_every_level_of_every_channel():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16, 1).repeat(3, axis=3)
    pixels = normalize(levels)
    assert all(len(np.unique(pixels[0, channel])) == 256 for channel in range(3))
    assert pixels.min() == pytest.approx((0 - 0.48145466) / 0.26862954)
    assert pixels.max() == pytest.approx((1 - 0.40821073) / 0.27577711)


@settings(max_examples=20)
@given(st.data(), architectures, st.sampled_from([(480, 480), (960, 240), (240, 960), (720, 480)]))
def test_a_coloured_square_lies_in_exactly_the_crops_whose_boxes_hold_it(data, architecture, size_wh):
    plan = plan_of(size_wh, architecture)
    number = data.draw(st.integers(0, plan.crop_count - 6), label="high crop")
    left, top, right, bottom = plan.high_crop(number).box_in(size_wh)
    # a third of the crop away from its edges, so that bicubic's ringing stays inside
    inset_x, inset_y = (right - left) // 3, (bottom - top) // 3
    square = left + inset_x, top + inset_y, right - inset_x, bottom - inset_y
    image = Image.new("RGB", size_wh, (40, 40, 40))
    image.paste((250, 40, 40), square)

    crops = cut_crops(draw_canvases(image, plan), plan)
    coloured = {index for index, crop in enumerate(crops) if crop[..., 0].max() > 60}
    overlapping = {i for i, place in enumerate(plan.places) if _overlap(place.box_in(size_wh), square)}
    assert coloured == overlapping
    assert {i for i in coloured if plan.places[i].level == "high"} == {5 + number}


def _overlap(a: tuple[int, int, int, int], b: tuple[int, int, int, int]) -> bool:
    return a[0] < b[2] and b[0] < a[2] and a[1] < b[3] and b[1] < a[3]


class Region:
    """An image that is not Pillow's, and remembers what it was asked for."""

    def __init__(self, size: tuple[int, int]) -> None:
        self.size = size
        self.asked: list[tuple[int, int]] = []

    def resize(self, size: tuple[int, int]) -> Image.Image:
        self.asked.append(size)
        return Image.new("RGBA", size, (len(self.asked), 0, 0, 255))


@pytest.mark.parametrize("architecture", ARCHITECTURES)
def test_a_region_is_asked_for_the_three_canvases_and_nothing_else(architecture):
    region = Region((90_000, 30_000))
    plan = plan_of(region.size, architecture)
    crops = cut_crops(draw_canvases(region, plan), plan)
    assert region.asked == list(plan.canvas_sizes)
    drawn_as = {"low": 1, "middle": 2, "high": 3}
    assert [crop[0, 0, 0] for crop in crops] == [drawn_as[place.level] for place in plan.places]


@settings(max_examples=20)
@given(small_images, st.integers(1, 300), st.integers(1, 300))
def test_stretching_goes_horizontally_first(image, width, height):
    """The weights were trained so; Pillow 13 alone would choose the order by size."""
    first = image.resize((width, image.height), Image.Resampling.BICUBIC)
    expected = first.resize((width, height), Image.Resampling.BICUBIC)
    np.testing.assert_array_equal(np.asarray(stretch(image, (width, height))), np.asarray(expected))


@pytest.mark.parametrize("mode", ["L", "RGBA", "P", "1", "CMYK"])
def test_every_kind_of_picture_becomes_rgb(mode):
    assert stretch(Image.new(mode, (10, 7)), (20, 30)).mode == "RGB"


def test_a_picture_of_the_wanted_size_is_left_as_it_is():
    image = _noise(0, (224, 224))
    np.testing.assert_array_equal(np.asarray(stretch(image, (224, 224))), np.asarray(image))


@pytest.mark.parametrize("version", ["v1", "v2"])
def test_the_golden_cases_agree_with_the_recorded_grids(version):
    """The table above is a copy for reading; the recorded files decide."""
    cases = json.loads((GOLDEN / version / "expected.json").read_text(encoding="utf-8"))["cases"]
    first = 0 if version == "v1" else 2
    for case in cases.values():
        for name, grids in zip(case["images"], case["grids"], strict=True):
            with Image.open(GOLDEN / name) as image:
                assert RECORDED_GRIDS[image.size][first : first + 2] == tuple(tuple(grid) for grid in grids)
