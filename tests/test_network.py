"""The network beyond its numbers: that it looks at the picture, each row at its own, and what it takes for input."""

from bisect import bisect_right
from typing import Any

import numpy as np
import pytest
import torch
from make_files import GOLDEN
from PIL import Image
from small_networks import QUESTION, first_logits, real

from dragonfly_med import DragonflyProcessor, PromptTooLongError
from dragonfly_med.modeling import rank_and_keep

pytestmark = pytest.mark.usefixtures("one_thread", "no_network")

LONGER_QUESTION = "Describe the lesion in the upper lobe of the right lung."


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (60, 80, 3), np.uint8))


def blank() -> Image.Image:
    return Image.new("RGB", (80, 60), (128, 128, 128))


@torch.inference_mode()
def generate(network: Any, images: list[Image.Image], questions: list[str], new_tokens: int = 6) -> Any:
    """New token ids [rows, steps] and their logits [rows, steps, vocabulary]; never stops early."""
    processor, model = network
    inputs = processor(text=[processor.prompt(question) for question in questions], images=images)
    answer = model.generate(
        **inputs,
        min_new_tokens=new_tokens,
        max_new_tokens=new_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    return answer.sequences[:, inputs["input_ids"].shape[1] :], torch.stack(answer.logits, dim=1)


def test_another_picture_gives_other_logits_in_forward(network):
    """Catches a network that runs cleanly but never looks, the worst that a change of transformers has done."""
    seen = [first_logits(network, [picture()], [QUESTION]) for picture in (blank, noise, real)]
    for index in range(3):
        assert (seen[index] - seen[index - 1]).abs().max() > 0.1


def test_another_picture_gives_another_answer_in_generate(network):
    answers = [generate(network, [picture()], [QUESTION]) for picture in (blank, noise, real)]
    for index in range(3):
        assert (answers[index][1] - answers[index - 1][1]).abs().amax(dim=(0, 2)).min() > 0.1  # at every step
    assert len({tuple(tokens.flatten().tolist()) for tokens, _ in answers}) > 1


def test_the_same_picture_gives_the_same_logits(v1):
    assert torch.equal(first_logits(v1, [real()], [QUESTION]), first_logits(v1, [real()], [QUESTION]))


def test_generate_runs_the_vision_encoder_exactly_once(network):
    calls = []
    hook = network[1].image_encoder.register_forward_hook(lambda _, inputs, __: calls.append(len(inputs[0])))
    tokens, _ = generate(network, [real()], [QUESTION])
    hook.remove()
    assert tokens.shape == (1, 6)
    assert calls == [network[0].plan(real().size).crop_count]


def test_text_alone_runs_no_vision_encoder(v1):
    processor, model = v1
    calls = []
    hook = model.image_encoder.register_forward_hook(lambda *_: calls.append(1))
    with torch.inference_mode():
        model(**processor(text=processor.prompt(QUESTION)))
    hook.remove()
    assert calls == []


def test_each_row_sees_its_own_picture(network):
    there = first_logits(network, [noise(), real()], [QUESTION, QUESTION])
    back = first_logits(network, [real(), noise()], [QUESTION, QUESTION])
    torch.testing.assert_close(there, back.flip(0), atol=1e-3, rtol=0)
    assert (there[0] - there[1]).abs().max() > 0.1


def test_a_left_padded_batch_answers_as_each_row_alone(network):
    images, questions = [real(), noise()], [QUESTION, LONGER_QUESTION]
    tokens, logits = generate(network, images, questions)
    for row in range(2):
        alone, alone_logits = generate(network, [images[row]], [questions[row]])
        assert tokens[row].tolist() == alone[0].tolist()
        torch.testing.assert_close(logits[row], alone_logits[0], atol=1e-3, rtol=0)


def test_placeholders_and_embeddings_must_be_equally_many(v1):
    processor, model = v1
    inputs = processor(text=[processor.prompt(QUESTION)], images=[blank()])
    one_less = {name: inputs[name][:, 1:] for name in ("input_ids", "attention_mask")}
    with pytest.raises(ValueError, match="850 image embeddings for 849 placeholders"):
        model(**one_less, pixel_values=inputs["pixel_values"])
    with pytest.raises(ValueError, match="0 placeholders"):
        model(**processor(text=processor.prompt(QUESTION)), pixel_values=inputs["pixel_values"])


def test_only_v1_selects_crops(networks):
    pixels = networks["v1"][0].pixels(real())[None]
    with torch.inference_mode():
        selected = networks["v1"][1].select_crops(pixels)[0].tolist()
    assert selected == sorted(set(selected))
    assert [sum(first <= crop < first + 6 for crop in selected) for first in (0, 6, 12, 18)] == [3, 3, 3, 3]
    with pytest.raises(ValueError, match="only v1"):
        networks["v2"][1].select_crops(pixels)


@pytest.mark.filterwarnings("ignore:.past_key_values. is deprecated")
@pytest.mark.parametrize("name", ["cache", "past_key_values"])
@torch.inference_mode()
def test_a_padded_batch_goes_on_from_its_cache(v1, name):
    processor, model = v1
    inputs = processor(text=[processor.prompt(QUESTION), processor.prompt(LONGER_QUESTION)], images=[real(), noise()])
    whole = model(**inputs, logits_to_keep=1).logits
    begin = {part: inputs[part][:, :-3] for part in ("input_ids", "attention_mask")}
    held = model(**begin, pixel_values=inputs["pixel_values"], use_cache=True).cache
    rest = {"input_ids": inputs["input_ids"][:, -3:], "attention_mask": inputs["attention_mask"]}
    torch.testing.assert_close(model(**rest, **{name: held}).logits[:, -1:], whole, atol=1e-4, rtol=0)


@torch.inference_mode()
def test_an_output_can_be_a_tuple(v1):
    processor, model = v1
    inputs = processor(text=[processor.prompt(QUESTION)], images=[real()])
    named = model(**inputs, use_cache=False)
    logits, selected = model(**inputs, use_cache=False, return_dict=False)
    assert torch.equal(logits, named.logits) and torch.equal(selected, named.selected_crops)


@pytest.mark.slow
def test_the_whole_pass_compiles_as_one_graph(v1):
    processor, model = v1
    inputs = processor(text=[processor.prompt(QUESTION)], images=[real()])
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    with torch.inference_mode():
        assert torch.equal(compiled(**inputs).logits, model(**inputs).logits)


def test_of_crops_that_are_equal_the_first_are_kept():
    """Most of a scan's crops are equally black; which of them are kept must not hang on the device."""
    features = torch.zeros(1, 29, 2, 3)
    features[0, 1:5] = 1
    assert rank_and_keep(features).tolist() == [[0, 1, 2, 6, 7, 8, 12, 13, 14, 18, 19, 20]]
    features[0, 5 + 4] = features[0, 5 + 23] = 1
    assert rank_and_keep(features).tolist() == [[0, 1, 4, 6, 7, 8, 12, 13, 14, 18, 19, 23]]


@pytest.mark.parametrize("max_length", [None, 100])
def test_a_long_prompt_is_refused_and_a_fitting_one_is_whole(network, max_length):
    processor = network[0]
    trained = 2048 if processor.architecture == "dragonfly-v1" else 4096
    limit = (max_length or trained) // 2 - 1

    def prompt_of(words: int) -> str:
        return processor.prompt("Why" + " is this" * words)

    longest = bisect_right(range(limit), limit, key=lambda words: len(processor.tokenizer(prompt_of(words)).input_ids))
    fits, too_long = prompt_of(longest - 1), prompt_of(longest)
    ids = processor(text=fits, max_length=max_length)["input_ids"][0].tolist()
    assert limit - 2 <= len(ids) <= limit
    assert processor.decode(ids, clean_up_tokenization_spaces=False) == "<|begin_of_text|>" + fits
    with pytest.raises(PromptTooLongError, match=f"at most {limit}"):
        processor(text=[too_long], images=[blank()], max_length=max_length)


def test_images_and_prompts_must_be_pairs(v1):
    processor = v1[0]
    with pytest.raises(ValueError, match="2 images cannot be paired with 1 prompts"):
        processor(text=[processor.prompt(QUESTION)], images=[blank(), blank()])
    with pytest.raises(ValueError, match="truncation"):
        processor(text=[processor.prompt(QUESTION)], images=[blank()], truncation=True)


def test_a_picture_alone_needs_no_list_and_the_side_of_the_padding_can_be_chosen():
    processor = DragonflyProcessor.from_pretrained(GOLDEN / "v1" / "checkpoint")
    picture, prompts = Image.new("RGB", (30, 20), "red"), [processor.prompt("A?"), processor.prompt("A longer one?")]
    alone = processor(text=prompts[0], images=picture, return_tensors="pt", padding=True)
    right = processor(text=prompts, images=[picture, picture], padding_side="right")
    left = processor(text=prompts, images=[picture, picture])
    length = alone["input_ids"].shape[1]
    assert right["attention_mask"][0].tolist() == [1] * length + [0] * (right["input_ids"].shape[1] - length)
    assert right["input_ids"][0, :length].tolist() == alone["input_ids"][0].tolist()
    assert left["input_ids"][0, -length:].tolist() == alone["input_ids"][0].tolist()
