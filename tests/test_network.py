"""The network beyond its numbers: that it looks at the picture, and which checkpoint folders it opens or refuses."""

import json
import pathlib
import shutil
import socket
from bisect import bisect_right
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, PreTrainedTokenizerFast

from dragonfly_med import (
    CheckpointError,
    DragonflyConfig,
    DragonflyForCausalLM,
    DragonflyProcessor,
    PromptTooLongError,
)
from dragonfly_med.modeling import rank_and_keep

pytestmark = pytest.mark.usefixtures("one_thread")

GOLDEN = Path(__file__).parent / "golden"
VERSIONS = ("v1", "v2")
QUESTION = "Is the heart enlarged?"
LONGER_QUESTION = "Describe the lesion in the upper lobe of the right lung."


@pytest.fixture(autouse=True)
def no_network(monkeypatch):
    def refuse(*_: Any) -> None:
        raise AssertionError("something wanted to open a connection")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def networks() -> dict[str, tuple[DragonflyProcessor, DragonflyForCausalLM]]:
    return {version: _open(GOLDEN / version / "checkpoint") for version in VERSIONS}


def _open(folder: Path) -> tuple[DragonflyProcessor, DragonflyForCausalLM]:
    return DragonflyProcessor.from_pretrained(folder), DragonflyForCausalLM.from_pretrained(folder).eval()


@pytest.fixture(params=VERSIONS)
def network(request, networks) -> tuple[DragonflyProcessor, DragonflyForCausalLM]:
    return networks[request.param]


@pytest.fixture(scope="module")
def v1(networks) -> tuple[DragonflyProcessor, DragonflyForCausalLM]:
    return networks["v1"]


def real() -> Image.Image:
    return Image.open(GOLDEN / "images" / "tiny_50x37.png")


def noise() -> Image.Image:
    return Image.fromarray(np.random.default_rng(7).integers(0, 256, (60, 80, 3), np.uint8))


def blank() -> Image.Image:
    return Image.new("RGB", (80, 60), (128, 128, 128))


@torch.inference_mode()
def first_logits(network: Any, images: list[Image.Image], questions: list[str]) -> torch.Tensor:
    processor, model = network
    inputs = processor(text=[processor.prompt(question) for question in questions], images=images)
    return model(**inputs, logits_to_keep=1).logits[:, -1]


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


# --- the picture matters


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


# --- prompts


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


# --- names and files


def test_auto_classes_know_dragonfly(tmp_path, v1):
    folder = GOLDEN / "v1" / "checkpoint"
    assert type(AutoConfig.from_pretrained(folder)) is DragonflyConfig
    assert type(AutoProcessor.from_pretrained(folder)) is DragonflyProcessor
    assert type(AutoModelForCausalLM.from_pretrained(folder)) is DragonflyForCausalLM
    v1[0].save_pretrained(tmp_path)
    assert type(AutoProcessor.from_pretrained(tmp_path)) is DragonflyProcessor


@pytest.mark.parametrize("version", VERSIONS)
def test_saving_writes_exactly_the_published_names_and_values(networks, version, tmp_path):
    published = load_file(GOLDEN / version / "checkpoint" / "model.safetensors")
    networks[version][1].save_pretrained(tmp_path)
    saved = load_file(tmp_path / "model.safetensors")
    assert set(saved) == set(published) == set(networks[version][1].state_dict())
    assert all(torch.equal(saved[name], published[name]) for name in published)


def test_a_new_network_is_saved_under_the_published_names_too(v1, tmp_path):
    DragonflyForCausalLM(v1[1].config).save_pretrained(tmp_path)
    published = load_file(GOLDEN / "v1" / "checkpoint" / "model.safetensors")
    assert set(load_file(tmp_path / "model.safetensors")) == set(published)


def test_what_was_saved_opens_again_and_answers_the_same(network, tmp_path):
    for part in network:
        part.save_pretrained(tmp_path)
    again = _open(tmp_path)
    assert again[0].architecture == network[0].architecture
    assert torch.equal(first_logits(again, [real()], [QUESTION]), first_logits(network, [real()], [QUESTION]))


def test_a_bin_file_and_shards_with_an_index_load_equal(v1, tmp_path):
    weights = load_file(GOLDEN / "v1" / "checkpoint" / "model.safetensors")
    as_bin = _copy(tmp_path / "bin")
    torch.save(weights, as_bin / "pytorch_model.bin")

    sharded = _copy(tmp_path / "sharded")
    names = sorted(weights)
    shards = {"pytorch_model-00001-of-00002.bin": names[:40], "pytorch_model-00002-of-00002.bin": names[40:]}
    for file, held in shards.items():
        torch.save({name: weights[name] for name in held}, sharded / file)
    index = {"metadata": {}, "weight_map": {name: file for file, held in shards.items() for name in held}}
    (sharded / "pytorch_model.bin.index.json").write_text(json.dumps(index))

    for folder in (as_bin, sharded):
        loaded = DragonflyForCausalLM.from_pretrained(folder).state_dict()
        assert all(torch.equal(loaded[name], weights[name]) for name in weights)
    (sharded / "pytorch_model-00002-of-00002.bin").unlink()
    with pytest.raises(CheckpointError, match="sharded"):
        DragonflyForCausalLM.from_pretrained(sharded)


@pytest.mark.parametrize(
    ("encoder", "parameters"),
    [("openai/clip-vit-base-patch32", 8_120_867_072), ("openai/clip-vit-large-patch14-336", 8_337_967_104)],
)
def test_full_size_networks_have_the_published_number_of_parameters(encoder, parameters):
    config = DragonflyConfig(image_encoder=encoder)
    with torch.device("meta"):
        model = DragonflyForCausalLM(config)
    assert sum(weight.numel() for weight in model.parameters()) == parameters
    assert (config.image_token_id, config.image_newline_token_id) == (128002, 128003)
    assert config.stop_token_ids == [128000, 128009]


def test_what_a_published_text_config_leaves_out_is_llama_3s():
    config = DragonflyConfig(
        text_config={"model_type": "llama", "num_hidden_layers": 2}, image_encoder="openai/clip-vit-large-patch14-336"
    )
    text = config.text_config
    assert (text.hidden_size, text.intermediate_size, text.num_key_value_heads) == (4096, 14336, 8)
    assert (text.rms_norm_eps, text.vocab_size, text.num_hidden_layers) == (1e-5, 128256, 2)
    assert text.rope_parameters["rope_theta"] == 500_000
    assert config.image_token_id == 128002
    narrow = DragonflyConfig(text_config={"hidden_size": 64, "num_attention_heads": 4}).text_config
    assert (narrow.num_key_value_heads, narrow.rms_norm_eps) == (4, 1e-6)  # transformers' own defaults


@pytest.mark.parametrize("scaling", [{"rope_type": "llama3", "factor": 8.0}, {"type": "linear", "factor": 2.0}])
def test_a_scaling_of_positions_outside_of_the_text_config_means_nothing(v1, scaling, tmp_path):
    folder = _copy(tmp_path / "scaled", weights=True)
    _change(folder / "config.json", rope_scaling=scaling, rope_theta=1.0)
    assert torch.equal(first_logits(_open(folder), [real()], [QUESTION]), first_logits(v1, [real()], [QUESTION]))


# --- folders that are refused

Weights = dict[str, torch.Tensor]


def _copy(folder: Path, *, weights: bool = False) -> Path:
    """A writable copy of the small v1 checkpoint, by default without its weights."""
    left_out = () if weights else ("model.safetensors",)
    shutil.copytree(GOLDEN / "v1" / "checkpoint", folder, ignore=shutil.ignore_patterns(*left_out))
    return folder


def _drop(weights: Weights) -> None:
    del weights["vision_embed_tokens.bias"]


def _add(weights: Weights) -> None:
    weights["another.weight"] = torch.zeros(2)


def _reshape(weights: Weights) -> None:
    weights["vision_embed_tokens.bias"] = torch.zeros(3)


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (_drop, "vision_embed_tokens.bias is missing"),
        (_add, "another.weight is not part of the network"),
        (_reshape, "vision_embed_tokens.bias has another shape"),
    ],
)
def test_weights_that_do_not_fit_exactly_are_refused(damage: Callable[[Weights], None], message, tmp_path):
    folder = _copy(tmp_path / "damaged")
    weights = load_file(GOLDEN / "v1" / "checkpoint" / "model.safetensors")
    damage(weights)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    _assert_refused(DragonflyForCausalLM, folder, message)


@pytest.mark.parametrize("kept_bytes", [0, 5, 5000, 1_000_000])
def test_a_truncated_file_is_refused(kept_bytes, tmp_path):
    folder = _copy(tmp_path / "truncated", weights=True)
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:kept_bytes])
    _assert_refused(DragonflyForCausalLM, folder, "cannot be read")


@pytest.mark.parametrize("kept_bytes", [0, 5000, 1_000_000])
def test_a_truncated_bin_file_is_refused(kept_bytes, tmp_path):
    folder = _copy(tmp_path / "truncated")
    file = folder / "pytorch_model.bin"
    torch.save(load_file(GOLDEN / "v1" / "checkpoint" / "model.safetensors"), file)
    file.write_bytes(file.read_bytes()[:kept_bytes])
    _assert_refused(DragonflyForCausalLM, folder, "")


def test_a_pickle_with_something_else_than_tensors_is_not_run(tmp_path):
    class Evil:
        def __reduce__(self) -> Any:
            return pathlib.Path.touch, (tmp_path / "was_run",)

    folder = _copy(tmp_path / "pickled")
    torch.save({"vision_embed_tokens.bias": Evil()}, folder / "pytorch_model.bin")
    _assert_refused(DragonflyForCausalLM, folder, "something other than tensors")
    assert not (tmp_path / "was_run").exists()


def test_a_folder_without_weights_is_refused(tmp_path):
    _assert_refused(DragonflyForCausalLM, _copy(tmp_path / "empty"), "")


def test_an_unknown_vision_encoder_is_refused(tmp_path):
    folder = _copy(tmp_path / "encoder", weights=True)
    _change(folder / "config.json", image_encoder="someone/another-encoder")
    for kind in (DragonflyForCausalLM, DragonflyProcessor):
        _assert_refused(kind, folder, "someone/another-encoder")


def test_broken_json_is_refused(tmp_path):
    folder = _copy(tmp_path / "json", weights=True)
    (folder / "config.json").write_text('{"model_type": "dragonfly", ')
    for kind in (DragonflyForCausalLM, DragonflyProcessor):
        _assert_refused(kind, folder, "")


def test_a_tokenizer_of_another_network_is_refused(tmp_path):
    folder = _copy(tmp_path / "tokenizer", weights=True)
    _change(folder / "config.json", bos_token_id=500)
    _assert_refused(DragonflyProcessor, folder, "<|begin_of_text|> at 584, the network at 500")


def test_a_tokenizer_whose_special_tokens_were_moved_is_refused(tmp_path):
    folder = _copy(tmp_path / "tokenizer", weights=True)
    _rename(
        folder / "tokenizer.json",
        {"<|eot_id|>": "<|reserved_special_token_4|>", "<|reserved_special_token_4|>": "<|eot_id|>"},
    )
    _assert_refused(DragonflyProcessor, folder, "<|eot_id|> at 592, the network at 593")


def test_a_tokenizer_with_more_tokens_than_the_network_is_refused(tmp_path):
    folder = _copy(tmp_path / "tokenizer", weights=True)
    tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
    tokenizer.add_tokens(["lesionlesion"])
    tokenizer.save_pretrained(folder)
    _assert_refused(DragonflyProcessor, folder, "601 tokens, and the network knows only 600")


def test_a_tokenizer_that_puts_nothing_before_a_text(v1, tmp_path):
    """As Llama 3's own first one: without its first token a text gives other answers."""
    folder = _copy(tmp_path / "tokenizer", weights=True)
    _change(folder / "tokenizer.json", post_processor=None)
    prompt = v1[0].prompt(QUESTION)
    assert DragonflyProcessor.from_pretrained(folder).text_ids(prompt) == v1[0].text_ids(prompt)
    assert v1[0].text_ids(prompt)[0] == v1[1].config.bos_token_id


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"architecture": "dragonfly-v3"}, "dragonfly-v3"),
        ({"architecture": "dragonfly-v2"}, "7 x 7 patches cannot be averaged to 6 x 6"),
    ],
)
def test_an_architecture_that_cannot_be_is_refused(settings, message, tmp_path):
    folder = _copy(tmp_path / "architecture", weights=True)
    _change(folder / "config.json", **settings)
    for kind in (DragonflyForCausalLM, DragonflyProcessor):
        _assert_refused(kind, folder, message)


def test_a_tokenizer_without_llamas_tokens_is_refused(tmp_path):
    folder = _copy(tmp_path / "tokenizer", weights=True)
    file = folder / "tokenizer.json"
    file.write_text(file.read_text(encoding="utf-8").replace("<|reserved_special_token_0|>", "<|something|>"))
    (folder / "tokenizer_config.json").unlink()
    (folder / "special_tokens_map.json").unlink()
    _assert_refused(DragonflyProcessor, folder, "no <|reserved_special_token_0|>")


@pytest.mark.parametrize("text", [None, "", "{}", "not json"])
def test_a_missing_or_broken_tokenizer_is_refused(text, tmp_path):
    folder = _copy(tmp_path / "tokenizer", weights=True)
    (folder / "tokenizer.json").unlink()
    if text is not None:
        (folder / "tokenizer.json").write_text(text)
    _assert_refused(DragonflyProcessor, folder, "tokenizer")


@pytest.mark.parametrize("kind", [DragonflyForCausalLM, DragonflyProcessor])
def test_a_hub_id_or_missing_folder_is_never_looked_up(kind, tmp_path):
    for name in ("togethercomputer/Llama-3-8B-Dragonfly-v1", str(tmp_path / "nowhere")):
        with pytest.raises(CheckpointError, match="no such checkpoint folder") as refusal:
            kind.from_pretrained(name)
        assert name in str(refusal.value)
    with pytest.raises(CheckpointError, match="not a checkpoint"):
        kind.from_pretrained(tmp_path)


def _rename(file: Path, names: dict[str, str]) -> None:
    """Renames the added tokens of a ``tokenizer.json``."""
    content = json.loads(file.read_text(encoding="utf-8"))
    for token in content["added_tokens"]:
        token["content"] = names.get(token["content"], token["content"])
    file.write_text(json.dumps(content))


def _change(file: Path, **settings: Any) -> None:
    file.write_text(json.dumps(json.loads(file.read_text(encoding="utf-8")) | settings))


def _assert_refused(kind: Any, folder: Path, message: str) -> None:
    with pytest.raises(CheckpointError) as refusal:
        kind.from_pretrained(folder)
    assert str(folder) in str(refusal.value)
    assert message in str(refusal.value)
    assert "\n" not in str(refusal.value)


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
