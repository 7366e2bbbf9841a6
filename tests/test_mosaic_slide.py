"""A mosaic slide opens as a real one, and its lesion is where it says, at every level."""

import numpy as np
import pytest

from benchmarks.mosaic_slide import CELL_PX, plan_mosaic, write_mosaic
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import open_source

PINK, DARK = (220, 150, 190), (90, 60, 130)


def plain(colour):
    return [np.full((CELL_PX, CELL_PX, 3), colour, np.uint8)]


@pytest.mark.parametrize("seed", [0, 1])
def test_the_lesion_is_where_the_box_says(tmp_path, seed):
    mosaic = plan_mosaic(4600, seed, (plain(PINK), plain(DARK)), lesion_cells=2)
    write_mosaic(tmp_path / "slide.svs", mosaic)
    source = open_source(tmp_path / "slide.svs")
    assert (source.format, source.size_wh, source.mpp) == ("aperio", (4608, 4608), (0.5, 0.5))
    x, y, width, height = mosaic.lesion_box
    for side in (4608, 1152, 288):  # the pyramid's levels
        shown = np.asarray(source.view(Box(0, 0, 4608, 4608)).resize((side, side))).astype(int)
        rows, columns = np.nonzero(shown[..., 0] < 155)
        found = np.array([columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]) * 4608 / side
        assert np.abs(found - (x, y, x + width, y + height)).max() <= 4608 / side


def test_the_lesion_lies_in_tissue_and_its_place_depends_on_the_seed():
    mosaics = [plan_mosaic(8192, seed, (plain(PINK), plain(DARK))) for seed in range(6)]
    assert len({mosaic.lesion_box for mosaic in mosaics}) > 3
    for mosaic in mosaics:
        x, y, width, height = (side // CELL_PX for side in mosaic.lesion_box)
        assert (mosaic.cells[y : y + height, x : x + width] == 2).all()
        assert (mosaic.cells == 2).sum() == width * height


def test_a_slide_too_small_for_its_lesion_is_refused():
    with pytest.raises(ValueError, match="no room"):
        plan_mosaic(700, 0, (plain(PINK), plain(DARK)))
