"""Decoding token by token is the same as ``generate``, and what is streamed is the whole text."""

from functools import cache

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from make_files import GOLDEN
from PIL import Image

from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor, NoNumbersError
from dragonfly_med.generation import Reading, Sampling, decode, stream_text


@pytest.fixture(scope="module", params=["v1", "v2"])
def loaded(request: pytest.FixtureRequest) -> tuple[DragonflyForCausalLM, DragonflyProcessor]:
    folder = GOLDEN / request.param / "checkpoint"
    return DragonflyForCausalLM.from_pretrained(folder).eval(), DragonflyProcessor.from_pretrained(folder)


@pytest.mark.parametrize("name", ["gray_512x384.png", "tiny_50x37.png", "tall_1to6_300x1800.png"])
def test_greedy_decoding_equals_generate(loaded: tuple[DragonflyForCausalLM, DragonflyProcessor], name: str) -> None:
    model, processor = loaded
    inputs = processor(text=[processor.prompt("What is this?")], images=[Image.open(GOLDEN / "images" / name)])
    generated = model.generate(**inputs, max_new_tokens=12, do_sample=False)[0, inputs["input_ids"].shape[1] :]
    expected = [token for token in generated.tolist() if token not in model.config.stop_token_ids]
    reading = Reading(model, processor.image_block(), inputs["pixel_values"][0])
    prompt = processor.text_ids(processor.prompt("What is this?"))
    tokens = list(decode(reading, prompt, Sampling(max_new_tokens=12)))
    assert tokens == expected
    text = processor.decode(tokens, skip_special_tokens=True)
    assert "".join(stream_text(processor, tokens)) == text.lstrip()


def test_a_character_of_several_tokens_is_shown_once_it_is_whole(
    loaded: tuple[DragonflyForCausalLM, DragonflyProcessor],
) -> None:
    _, processor = loaded
    tokens = processor.tokenizer("µm 測試 🫁", add_special_tokens=False)["input_ids"]
    pieces = list(stream_text(processor, tokens))
    assert "".join(pieces) == "µm 測試 🫁"
    assert not any("\ufffd" in piece for piece in pieces)


@pytest.mark.parametrize("kept", [0, 1])
def test_a_pass_that_was_stopped_within_a_layer_leaves_nothing_behind(
    loaded: tuple[DragonflyForCausalLM, DragonflyProcessor], kept: int
) -> None:
    """Keys are kept before values are, and the first layers before the last."""
    model, processor = loaded
    pixels = processor.pixels(Image.open(GOLDEN / "images" / "tiny_50x37.png"))
    reading = Reading(model, processor.image_block(), pixels)
    prompts = [processor.text_ids(processor.prompt(text)) for text in ("What is this?", "Where?")]
    expected = list(decode(reading, prompts[1], Sampling(6)))
    if not kept:
        reading.forget()
    list(decode(reading, prompts[0], Sampling(3)))
    first, second, *_ = reading._cache.layers
    first.keys = torch.cat([first.keys, first.keys[..., -1:, :]], dim=-2)
    second.keys, second.values = second.keys[..., :-1, :], second.values[..., :-1, :]
    assert list(decode(reading, prompts[1], Sampling(6))) == expected


def test_sampling_follows_its_seed(loaded: tuple[DragonflyForCausalLM, DragonflyProcessor]) -> None:
    model, processor = loaded
    prompt = processor.text_ids(processor.prompt("What is this?"))
    pixels = processor.pixels(Image.open(GOLDEN / "images" / "tiny_50x37.png"))
    reading = Reading(model, processor.image_block(), pixels)

    def drawn(seed: int) -> list[int]:
        return list(decode(reading, prompt, Sampling(8, temperature=1.5, seed=seed)))

    assert drawn(1) == drawn(1)
    assert any(drawn(1) != drawn(seed) for seed in (2, 3, 4))


# What the reference decodes, recorded by running it.
CLEANED = {
    "Is this normal ? Yes , it is . We 've seen n't worse .": "Is this normal? Yes, it is. We've seenn't worse.",
    "Où est la lésion ? 37.5 µm 肺 🫁": "Où est la lésion? 37.5 µm 肺 🫁",
    "line one\n\nline two \n  indented": "line one\n\nline two \n  indented",
}


@pytest.mark.parametrize("said", CLEANED)
def test_text_has_no_space_before_punctuation_as_published(
    loaded: tuple[DragonflyForCausalLM, DragonflyProcessor], said: str
) -> None:
    _, processor = loaded
    tokens = processor.tokenizer.encode(said, add_special_tokens=False)
    assert processor.decode(tokens) == CLEANED[said]
    assert processor.batch_decode([tokens]) == [CLEANED[said]]
    assert "".join(stream_text(processor, tokens)) == CLEANED[said]
    assert "".join(stream_text(processor, tokens, verbatim=True)) == said  # as a schema wants it


pieces_of_text = st.lists(
    st.sampled_from(
        [" ", ".", ",", "'", "n", "t", "s", "ve", " n't", " '", "  ", "word", "µ", "🫁", "\n", "<|eot_id|>"]
    )
)


@given(pieces_of_text)
def test_what_is_streamed_is_what_is_decoded(pieces: list[str]) -> None:
    processor = _processor()
    tokens = [token for piece in pieces for token in processor.tokenizer.encode(piece, add_special_tokens=False)]
    for verbatim in (False, True):
        whole = processor.decode(
            tokens, skip_special_tokens=True, clean_up_tokenization_spaces=False if verbatim else None
        )
        assert "".join(stream_text(processor, tokens, verbatim)) == whole.lstrip()


@cache
def _processor() -> DragonflyProcessor:
    return DragonflyProcessor.from_pretrained(GOLDEN / "v1" / "checkpoint")


def test_numbers_that_are_none_are_not_read_as_an_answer() -> None:
    folder = GOLDEN / "v1" / "checkpoint"
    model, processor = DragonflyForCausalLM.from_pretrained(folder).eval(), _processor()
    with torch.no_grad():
        model.language_model.model.norm.weight[0] = float("inf")
    prompt = processor.text_ids(processor.prompt("Is it?"))
    with pytest.raises(NoNumbersError, match="float32"):
        list(decode(Reading(model, [], None), prompt, Sampling(4)))
