"""An image is read once, and every text about it costs its own tokens; the logits are those of reading all at once."""

import pytest
import torch
from make_files import GOLDEN
from PIL import Image

from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.generation import Reading, Sampling, decode, encode_images

QUESTIONS = ["Is there necrosis?", "What is this?", "Is there a fracture of the left arm?", "Is there necrosis?"]
Loaded = tuple[DragonflyForCausalLM, DragonflyProcessor, torch.Tensor]


@pytest.fixture(scope="module", params=["v1", "v2"])
def loaded(request: pytest.FixtureRequest) -> Loaded:
    folder = GOLDEN / request.param / "checkpoint"
    processor = DragonflyProcessor.from_pretrained(folder)
    pixels = processor.pixels(Image.open(GOLDEN / "images" / "gray_512x384.png"))
    return DragonflyForCausalLM.from_pretrained(folder).eval(), processor, pixels


def separately(loaded: Loaded, text_ids: list[int]) -> torch.Tensor:
    """Logits of the whole text, read at once without a cache."""
    model, processor, pixels = loaded
    ids = torch.tensor([processor.image_block() + text_ids])
    with torch.inference_mode():
        return model(input_ids=ids, pixel_values=pixels[None]).logits[0, -len(text_ids) :]


def reading_of(loaded: Loaded) -> Reading:
    model, processor, pixels = loaded
    return Reading(model, processor.image_block(), pixels)


def same(one: torch.Tensor, other: torch.Tensor) -> None:
    torch.testing.assert_close(one, other, atol=1e-5, rtol=0)


def test_every_question_has_the_logits_of_being_asked_alone(loaded: Loaded) -> None:
    processor, reading = loaded[1], reading_of(loaded)
    for question in QUESTIONS:
        ids = processor.text_ids(processor.prompt(question))
        same(reading.logits(ids)[-1], separately(loaded, ids)[-1])
        same(reading.logits(ids, last=4), separately(loaded, ids)[-4:])


def test_a_question_costs_its_own_tokens_and_the_picture_is_encoded_once(loaded: Loaded) -> None:
    model, processor, _ = loaded
    reading = reading_of(loaded)
    passes: list[int] = []
    pictures: list[int] = []

    def note_tokens(module: torch.nn.Module, args: object, given: dict) -> None:
        passes.append(given["inputs_embeds"].shape[1])

    hooks = [
        model.language_model.register_forward_pre_hook(note_tokens, with_kwargs=True),
        model.image_encoder.register_forward_pre_hook(lambda module, given: pictures.append(len(given[0]))),
    ]
    prompts = [processor.text_ids(processor.prompt(question)) for question in QUESTIONS[:3]]
    for prompt in prompts:
        reading.logits(prompt)
        reading.logits(prompt)  # known already
    for hook in hooks:
        hook.remove()
    assert pictures == [len(loaded[2])]
    assert passes[0] == len(processor.image_block()) + len(prompts[0])
    assert len(passes) == 3
    assert all(tokens <= len(prompt) for tokens, prompt in zip(passes[1:], prompts[1:], strict=True))


def test_pictures_encoded_together_are_read_as_when_each_is_encoded_alone(loaded: Loaded) -> None:
    model, processor, pixels = loaded
    pictures = [pixels, -pixels, pixels.roll(50, dims=-1)]
    together, alone = ([Reading(model, processor.image_block(), each) for each in pictures] for _ in range(2))
    text = processor.text_ids(processor.prompt("Is it?"))
    encoded: list[int] = []
    hook = model.image_encoder.register_forward_pre_hook(lambda module, given: encoded.append(len(given[0])))
    encode_images(together)
    assert sum(encoded) == 3 * len(pixels)
    logits = [reading.logits(text) for reading in together]
    assert sum(encoded) == 3 * len(pixels)  # not again
    hook.remove()
    for reading, other, seen in zip(together, alone, logits, strict=True):
        same(seen, other.logits(text))
        assert reading.selected_crops == other.selected_crops
        reading.forget()
        same(reading.logits(text), seen)


def test_another_picture_gives_other_logits(loaded: Loaded) -> None:
    """Guards the tests above: what is kept belongs to one picture."""
    model, processor, pixels = loaded
    ids = processor.text_ids(processor.prompt("Is it?"))
    other = Reading(model, processor.image_block(), -pixels)
    assert (other.logits(ids) - reading_of(loaded).logits(ids)).abs().max() > 1e-3


def test_a_conversation_goes_on_where_it_was(loaded: Loaded) -> None:
    processor, reading = loaded[1], reading_of(loaded)
    first = processor.text_ids(processor.prompt("What is this?"))
    answer = list(decode(reading, first, Sampling(max_new_tokens=6)))
    turns = [("What is this?", processor.decode(answer, skip_special_tokens=True))]
    second = processor.text_ids(processor.prompt("Is it large?", earlier=turns))
    assert second[: len(first)] == first
    same(reading.logits(second)[-1], separately(loaded, second)[-1])


def test_greedy_decoding_is_the_same_whatever_was_asked_before(loaded: Loaded) -> None:
    processor, reading = loaded[1], reading_of(loaded)
    ids = processor.text_ids(processor.prompt("What is this?"))
    alone = list(decode(reading_of(loaded), ids, Sampling(max_new_tokens=10)))
    assert list(decode(reading_of(loaded), ids, Sampling(max_new_tokens=10))) == alone
    reading.logits(processor.text_ids(processor.prompt(QUESTIONS[2])))
    assert list(decode(reading, ids, Sampling(max_new_tokens=10))) == alone


def test_an_interrupt_in_the_middle_of_a_pass_leaves_no_trace(loaded: Loaded) -> None:
    model, processor, _ = loaded
    reading = reading_of(loaded)

    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    for question in QUESTIONS[:2]:  # once while the picture is read, once while a later question is
        prompt = processor.text_ids(processor.prompt(question))
        hook = model.language_model.model.layers[-1].register_forward_pre_hook(interrupt)
        with pytest.raises(KeyboardInterrupt):
            reading.logits(prompt)
        hook.remove()
        same(reading.logits(prompt)[-1], separately(loaded, prompt)[-1])


def test_text_can_be_read_without_a_picture(loaded: Loaded) -> None:
    model, processor, _ = loaded
    ids = processor.text_ids(processor.prompt(QUESTIONS[0]))
    with torch.inference_mode():
        whole = model(input_ids=torch.tensor([ids])).logits[0]
    same(Reading(model, [], None).logits(ids)[-1], whole[-1])
