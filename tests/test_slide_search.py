"""The search with the real model: what a glance is, and which fields each ranking chooses."""

from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
import torch
from make_files import write_svs
from run_dragonfly import dragonfly

from benchmarks.mosaic_slide import CELL_PX, generated_pictures, plan_mosaic, write_mosaic
from dragonfly_cli.engine.checkpoints import canvas_of, find_checkpoint
from dragonfly_cli.engine.glance import contrast, glance, likeness, mean_features, oddity, p_yes, parts
from dragonfly_cli.engine.model import load_model
from dragonfly_cli.engine.questions import as_question
from dragonfly_cli.fields import plan_looks
from dragonfly_cli.geometry import Box
from dragonfly_cli.option_values import Aggregate, Rank
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.searching import Chooser, reasons
from dragonfly_med.crops import normalize

YES_NO, NECROSIS = as_question("Is there a tumour?"), as_question("Is there necrosis?")
OPEN = as_question("What kind of image is this?")
EXAMPLES = Path(__file__).parents[1] / "examples"
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
    seen, overview = glance(model, source, BOXES), glance(model, source, [Box(0, 0, 3000, 2200)])[0].mean(dim=0)
    means = seen.mean(dim=1)
    together = [p_yes(model, seen, YES_NO), likeness(means, overview), contrast(means, overview)]
    apart = [
        [p_yes(model, each[None], YES_NO)[0] for each in seen],
        [likeness(each[None], overview)[0] for each in means],
        [contrast(each[None], overview)[0] for each in means],
    ]
    assert np.allclose(together, apart, atol=1e-4)
    assert all(0 < value < 1 for value in together[0]) and len(set(together[0])) == 3
    assert contrast(overview[None], overview)[0] == pytest.approx(0, abs=1e-5)


@torch.inference_mode()
def test_p_yes_of_a_glance_is_what_the_network_says_behind_one_crop(model, source):
    """Read from the network itself: the crop in its places, and the question in those behind a whole image."""
    seen, question = glance(model, source, BOXES[:1]), as_question("Is there a tumour?", system="You see tissue.")
    block, tokens = model.processor.image_block(), seen.shape[1]
    text = model.processor.text_ids(model.processor.prompt("You see tissue. Is there a tumour?"))
    ids = torch.tensor([block[: tokens + 1] + text])
    places = torch.tensor([[*range(tokens + 1), *range(len(block), len(block) + len(text))]])
    words = model.network.get_input_embeddings()(ids)
    logits = model.network(
        inputs_embeds=model.network.place_images(ids, words, seen),
        attention_mask=torch.ones_like(ids),
        position_ids=places,
    ).logits[0, -1]
    yes, no = (logits.double().softmax(-1)[model.option_ids[option]].sum() for option in ("yes", "no"))
    assert p_yes(model, seen, question) == pytest.approx([float(yes / (yes + no))], abs=1e-5)


def test_a_glance_says_yes_where_the_lesion_is(model):
    with closing(open_source(EXAMPLES / "slide_necrosis.svs")) as sick:
        seen = glance(model, sick, [Box(2400, 1300, 672, 448), Box(606, 2050, 672, 448)])
    necrotic, healthy = p_yes(model, seen, NECROSIS)
    assert necrotic > 0.5 > healthy


def test_what_is_likest_to_the_overview_has_the_largest_dot_product():
    overview = torch.tensor([1.0, 2.0])
    means = torch.tensor([[3.0, 0.0], [0.0, 3.0], [-1.0, -2.0], [4.0, -2.0]])
    assert likeness(means, overview) == [3.0, 6.0, -5.0, 0.0]


def test_oddity_is_the_distance_of_the_oddest_parts_to_the_eighth_nearest():
    seen = torch.randn(3, 10, 4, generator=torch.Generator().manual_seed(0))
    every = [part for box in seen for part in box]
    expected = []
    for box in seen:
        eighth = [sorted(float((part - other).norm()) for other in every)[7] for part in box]
        expected.append(np.mean(sorted(eighth)[-8:]))
    assert oddity(seen) == pytest.approx(expected, abs=1e-4)


def test_the_glance_is_seen_by_a_model_that_keeps_no_cache(model, source):
    """As a configuration says that gradient checkpointing left behind."""
    seen = glance(model, source, BOXES)
    kept = p_yes(model, seen, YES_NO)
    config = model.network.language_model.config
    before, config.use_cache = config.use_cache, False
    try:
        assert p_yes(model, seen, YES_NO) == pytest.approx(kept, abs=1e-5)
    finally:
        config.use_cache = before


def test_odd_is_what_has_a_few_parts_unlike_the_rest_though_they_lie_across_four_boxes():
    seen = torch.randn(44, 49, 8, generator=torch.Generator().manual_seed(0))
    seen[40:, 0] = 4.0 + 0.1 * seen[40:, 0]  # one part of each; their means differ by less than those of the others do
    odd = oddity(seen)
    assert min(odd[40:]) > max(odd[:40])
    assert len(oddity(seen[:2])) == 2 and len(oddity(seen[:1, :1])) == 1
    many = seen[:40].repeat(10, 1, 1)  # more than are compared with each other
    assert np.argmax(oddity(torch.cat([many, seen[40:41]]))) == 400


def test_boxes_of_a_network_in_16_bits_are_not_equally_good():
    """Their means differ by less than 16 bits tell apart."""
    seen = torch.ones(40, 50, 8, dtype=torch.bfloat16)
    for number in range(40):
        seen[number, :number] += 2**-7
    assert len(set(likeness(mean_features(seen), torch.ones(8)))) == 40


def test_parts_of_a_fine_glance_are_means_of_neighbouring_patches_in_their_places():
    grid = torch.arange(14 * 14.0).reshape(14, 14)
    seen = torch.cat([torch.full((1,), -1e6), grid.flatten()])[None, :, None]  # behind the class token
    squares = grid.unflatten(0, (7, 2)).unflatten(2, (7, 2)).mean(dim=(1, 3))
    assert torch.allclose(parts(seen)[0, :, 0], squares.flatten())
    assert torch.equal(parts(seen[:, :50])[0], seen[0, 1:50])


@pytest.mark.parametrize("rank", [Rank.spread, Rank.likeness, Rank.contrast, Rank.odd, Rank.yes])
def test_a_ranking_chooses_its_best_fields_and_says_what_they_cost(model, source, rank):
    plan = plan_looks(source, LookOptions(budget=4), model.canvas_wh)
    chooser = Chooser(model, source, plan.fields[:1], plan.search)
    fields = chooser.fields(YES_NO, rank)
    assert [field.role for field in fields] == ["overview", "zoom", "zoom", "zoom"]
    assert [field.id for field in fields] == [0, 1, 2, 3]
    cells = len(plan.search.grid.cells())
    assert chooser.glances == {Rank.spread: 0, Rank.yes: cells, Rank.odd: cells}.get(rank, cells + 1)
    if rank in (Rank.yes, Rank.likeness):
        every = [plan.search.grid.box(cell) for cell in plan.search.grid.cells()]
        seen, overview = (glance(model, source, boxes) for boxes in (every, [plan.fields[0].box]))
        alike = (seen.mean(dim=1) @ overview[0].mean(dim=0)).tolist()
        values = dict(zip(every, p_yes(model, seen, YES_NO) if rank is Rank.yes else alike, strict=True))
        assert max(values.values()) == pytest.approx(max(map(values.get, set(values) & {f.box for f in fields})))


def test_questions_that_share_their_fields_are_asked_together(model, source):
    plan = plan_looks(source, LookOptions(budget=4), model.canvas_wh)
    asked = {
        (rule, rank): list(Chooser(model, source, plan.fields[:1], plan.search, rule).groups(questions, rank))
        for rule, rank, questions in (
            (Aggregate.confirmed, Rank.yes, [YES_NO, OPEN, OPEN, YES_NO]),
            (Aggregate.confirmed, Rank.spread, [YES_NO, NECROSIS, OPEN]),
            (Aggregate.max, Rank.spread, [YES_NO, NECROSIS, OPEN]),
        )
    }
    sizes = [[(len(fields), len(questions)) for fields, questions in groups] for groups in asked.values()]
    assert sizes == [[(3, 1), (4, 2), (3, 1)], [(3, 2), (4, 1)], [(4, 3)]]  # a second look takes one of the fields
    assert reasons(model, Rank.yes, OPEN) == (Rank.likeness,)


@pytest.fixture(scope="module", params=[1, 2, 3])
def lesion_slide(request, tmp_path_factory):
    """A slide of generated benign tissue of 10,240 px with a tumour of 0.7 % of it, and where that lies."""
    path = tmp_path_factory.mktemp("slides") / "slide.svs"
    mosaic = plan_mosaic(10240, request.param, generated_pictures("tumour", request.param, CELL_PX), lesion_cells=2)
    write_mosaic(path, mosaic)
    return path, Box(*mosaic.lesion_box)


def test_a_small_lesion_is_found_from_coarse_to_fine(model, lesion_slide):
    path, lesion = lesion_slide
    source = open_source(path)
    plan = plan_looks(source, LookOptions(budget=5), model.canvas_wh)
    assert plan.search.power >= 1  # not every field is glanced at
    chooser = Chooser(model, source, plan.fields[:1], plan.search)
    zooms = chooser.fields(YES_NO, Rank.auto)[1:]
    assert len(zooms) == 4 and any(field.box.meets(lesion) for field in zooms)
    assert chooser.glances < len(plan.search.grid.cells())


@pytest.mark.parametrize("rank", [Rank.odd, Rank.contrast])
def test_what_looks_different_is_tissue_and_not_the_glass_around_it(model, rank):
    with closing(open_source(EXAMPLES / "slide.svs")) as benign:
        plan = plan_looks(benign, LookOptions(budget=6), model.canvas_wh)
        zooms = Chooser(model, benign, plan.fields[:1], plan.search).fields(YES_NO, rank)[1:]
    assert np.mean([plan.tissue.share(field.box) for field in zooms]) > 0.75


@pytest.mark.slow
def test_the_best_evidence_shows_the_lesion(lesion_slide):
    path, lesion = lesion_slide
    record = dragonfly("ask", path, YES_NO.text, "--budget", "5", "--json").json
    best = max(record["fields"][1:], key=lambda field: field["probabilities"]["yes"])
    assert record["answer"] == "Yes" and Box(**best["box"]).meets(lesion)


def test_the_scale_is_known_without_loading_the_model(model):
    assert canvas_of(find_checkpoint("demo")) == model.canvas_wh == (672, 448)
