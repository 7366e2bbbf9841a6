"""Generated tissue is the same for the same seed, and the same tissue at every magnification."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from examples.tissue import KINDS, Focus, draw_mapped_tissue, draw_patch, draw_tissue, kind_shares
from examples.tissue.canvas import Canvas

FOCI = [Focus("tumour", (150, 150), 90), Focus("necrosis", (420, 300), 110)]


def test_the_same_seed_draws_the_same_picture():
    first, again, other = (np.asarray(draw_tissue((160, 120), 4, seed, FOCI, on_glass=True)) for seed in (3, 3, 4))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


@settings(max_examples=30)
@given(
    kind=st.sampled_from(KINDS),
    size=st.tuples(st.integers(2, 90), st.integers(2, 90)),
    microns_per_pixel=st.floats(0.1, 60),
    seed=st.integers(0, 1000),
)
def test_every_kind_can_be_drawn_at_every_size(kind, size, microns_per_pixel, seed):
    patch = draw_patch(kind, size, microns_per_pixel, np.random.default_rng(seed))
    assert (patch.size, patch.mode) == (size, "RGB")


@settings(max_examples=20)
@given(
    places=st.lists(st.tuples(st.sampled_from(KINDS), st.floats(-50, 300), st.floats(-50, 300), st.floats(5, 200))),
    seed=st.integers(0, 1000),
)
def test_every_pixel_is_shared_out_among_the_kinds(places, seed):
    foci = [Focus(kind, (x, y), radius) for kind, x, y, radius in places]
    shares = kind_shares(Canvas((50, 40), 5.0, np.random.default_rng(seed)), foci)
    assert np.allclose(sum(shares.values()), 1, atol=1e-5)
    assert all(share.min() >= 0 for share in shares.values())


def test_the_last_focus_covers_its_centre():
    shares = kind_shares(Canvas((100, 100), 5.0, np.random.default_rng(0)), FOCI)
    assert shares["tumour"][30, 30] == 1
    assert shares["necrosis"][60, 84] == 1
    assert shares["benign"][5, 95] == 1


def test_the_middle_of_a_piece_is_torn_as_often_as_the_piece_itself():
    """A search shows a model such fields: it has to have learnt that a fissure is no finding."""
    _, piece = draw_mapped_tissue((400, 400), 4, 1, on_glass=True)
    inner = piece["glass"][130:270, 130:270]
    fields = [draw_mapped_tissue((140, 140), 4, seed, piece_um=1600)[1]["glass"].mean() for seed in range(12)]
    assert 0.02 < inner.mean() < 0.4 and 0.02 < np.mean(fields) < 0.4
    assert sum(share > 0.005 for share in fields) >= 6
    assert "glass" not in draw_mapped_tissue((140, 140), 4, 0)[1]


@pytest.mark.parametrize("kind", ["benign", "tumour", "necrosis", "stroma"])
def test_a_coarse_field_has_the_colour_of_a_fine_one(kind):
    """What a model learns from fields at 4 microns per pixel has to hold for the overview of a slide."""
    colours = [
        np.mean(
            [np.asarray(draw_patch(kind, (side, side), mpp, np.random.default_rng(n))).mean((0, 1)) for n in range(4)],
            0,
        )
        for mpp, side in ((0.5, 512), (4, 64))
    ]
    assert np.abs(colours[0] - colours[1]).max() < 30


def test_stains_overlap_so_that_colour_alone_does_not_tell_necrosis():
    means = {
        kind: [np.asarray(draw_patch(kind, (64, 64), 4, np.random.default_rng(n))).mean() for n in range(30)]
        for kind in ("benign", "necrosis")
    }
    assert np.quantile(means["benign"], 0.9) > np.quantile(means["necrosis"], 0.25)


def test_an_unknown_kind_is_refused():
    with pytest.raises(KeyError, match="cheese"):
        draw_patch("cheese", (20, 20), 1.0, np.random.default_rng(0))
