"""The search with the real model: what a glance is, and which fields each ranking chooses."""

import numpy as np
import pytest
import torch
from make_files import write_svs

from dragonfly_cli.engine.checkpoints import canvas_of, find_checkpoint
from dragonfly_cli.engine.glance import contrast, glance, likeness, p_yes
from dragonfly_cli.engine.model import load_model
from dragonfly_cli.engine.questions import as_question
from dragonfly_cli.fields import plan_looks
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions, Rank
from dragonfly_cli.readers import open_source
from dragonfly_cli.searching import Chooser, ranking
from dragonfly_med.crops import normalize

YES_NO, OPEN = as_question("Is there a tumour?"), as_question("What kind of image is this?")
BOXES = [Box(600, 400, 672, 448), Box(0, 0, 300, 300), Box(900, 700, 1344, 896)]


@pytest.fixture(scope="module")
def model():
    return load_model(find_checkpoint("demo"), "cpu")


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    return open_source(write_svs(tmp_path_factory.mktemp("slides") / "slide.svs", (3000, 2200)))


def test_a_glance_is_the_features_of_the_low_view(model, source):
    seen = glance(model, source, BOXES)
    side = model.processor.crop_side_px
    crop = np.asarray(source.view(BOXES[1]).resize((side, side)))
    alone = model.network.encode_crops(torch.from_numpy(normalize([crop]))[None])[0, 0]
    assert torch.allclose(seen[1], alone, atol=1e-4)


def test_worths_are_of_each_box_and_do_not_depend_on_the_others(model, source):
    seen, overview = glance(model, source, BOXES), glance(model, source, [Box(0, 0, 3000, 2200)])
    together = [p_yes(model, seen, YES_NO), likeness(seen, overview), contrast(seen, overview)]
    apart = [
        [p_yes(model, each[None], YES_NO)[0] for each in seen],
        [likeness(each[None], overview)[0] for each in seen],
        [contrast(each[None], overview)[0] for each in seen],
    ]
    assert np.allclose(together, apart, atol=1e-4)
    assert all(0 < value < 1 for value in together[0]) and len(set(together[0])) == 3
    assert contrast(overview, overview)[0] == pytest.approx(0, abs=1e-5)


@pytest.mark.parametrize("rank", [Rank.spread, Rank.likeness, Rank.contrast, Rank.yes])
def test_a_ranking_chooses_its_best_fields_and_says_what_they_cost(model, source, rank):
    plan = plan_looks(source, LookOptions(budget=4), model.canvas_wh)
    chooser = Chooser(model, source, plan.fields[:1], plan.search)
    fields = chooser.fields(YES_NO, rank)
    assert [field.role for field in fields] == ["overview", "zoom", "zoom", "zoom"]
    assert [field.id for field in fields] == [0, 1, 2, 3]
    cells = len(plan.search.grid.cells())
    assert chooser.glances == {Rank.spread: 0, Rank.yes: cells}.get(rank, cells + 1)
    if rank is Rank.yes:
        every = [plan.search.grid.box(cell) for cell in plan.search.grid.cells()]
        values = dict(zip(every, p_yes(model, glance(model, source, every), YES_NO), strict=True))
        assert max(values.values()) == pytest.approx(max(map(values.get, set(values) & {f.box for f in fields})))


def test_questions_that_share_their_fields_are_asked_together(model, source):
    plan = plan_looks(source, LookOptions(budget=3), model.canvas_wh)
    groups = list(Chooser(model, source, plan.fields[:1], plan.search).groups([YES_NO, OPEN, OPEN, YES_NO], Rank.yes))
    assert [len(questions) for _, questions in groups] == [1, 2, 1]
    assert [
        len(questions)
        for _, questions in Chooser(model, source, plan.fields[:1], plan.search).groups([YES_NO, OPEN], Rank.spread)
    ] == [2]
    assert ranking(model, Rank.yes, OPEN) is not Rank.yes


def test_the_scale_is_known_without_loading_the_model(model):
    assert canvas_of(find_checkpoint("demo")) == model.canvas_wh == (672, 448)
