"""The grid over the tissue and the search in it, as pure geometry."""

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st
from slide_plans import CANVAS_WH, painted, tissue_of

from dragonfly_cli.fields.grid import Grid, spread_cells
from dragonfly_cli.fields.search import CELLS_PER_FIELD, GLANCES_PER_FIELD, ZoomSearch
from dragonfly_cli.fields.tissue import Tissue
from dragonfly_cli.geometry import Box


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


@settings(max_examples=30)  # each takes a tenth of a second
@given(st.integers(0, 100), st.integers(0, 230), st.integers(15, 40))
def test_a_small_piece_of_tissue_by_itself_is_not_left_out(left, top, side):
    """Pieces of less than a fifth of a field, beside a large one."""
    tissue = tissue_of(painted((200, 20, 390, 280), (left, top, left + side, top + side)))
    grid = Grid(tissue, tissue.bounds, (1000, 800))
    piece = Box(left * 10, top * 10, side * 10, side * 10)
    assert any(grid.box(cell).meets(piece) for cell in grid.cells())


@given(st.integers(10, 280), st.integers(2, 12), st.integers(700, 880))
def test_a_thin_part_of_a_large_piece_is_not_left_out(top, height, right):
    """A strand of less than a fifth of a field, drawn out of a block; a tip that hardly reaches into a field may be."""
    mask = np.zeros((300, 900), bool)
    mask[10:290, 10:450] = mask[top : top + height, 450:right] = True
    tissue = Tissue(mask, (9000, 3000), found=True)
    grid = Grid(tissue, tissue.bounds, (1000, 800))
    shown = [grid.box(cell) for cell in grid.cells()]
    strand = [Box(x * 10, top * 10, 10, height * 10) for x in range(650, right - 20, 5)]
    assert all(any(box.meets(part) for box in shown) for part in strand)


def test_glass_is_no_candidate():
    """Around a strand drawn out of a block, where its share is not always 0 to the last digit."""
    mask = np.zeros((819, 1024), bool)
    mask[50:600, 50:300] = mask[300:302, 300:1000] = True
    tissue = Tissue(mask, (40_000, 30_000), found=True)
    grid = Grid(tissue, tissue.bounds, (1344, 896))
    shown = [grid.box(cell) for cell in grid.cells()]
    pieces = Box(1953, 1831, 9766, 20_147), Box(11_718, 10_989, 27_345, 74)
    assert shown and all(any(box.meets(piece) for piece in pieces) for box in shown)


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
