"""Checkpoint folders: what is saved opens again and is the same, and what is incomplete or another's is refused."""

import json
import pathlib
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from make_checkpoints import tensors
from make_files import GOLDEN
from run_dragonfly import dragonfly
from safetensors.torch import load_file, save_file
from small_networks import QUESTION, VERSIONS, first_logits, open_network, real
from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor, PreTrainedTokenizerFast
from tuning_data import finetune, make_data

from dragonfly_med import CheckpointError, DragonflyConfig, DragonflyForCausalLM, DragonflyProcessor

pytestmark = pytest.mark.usefixtures("one_thread", "no_network")


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
    again = open_network(tmp_path)
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
    assert torch.equal(first_logits(open_network(folder), [real()], [QUESTION]), first_logits(v1, [real()], [QUESTION]))


HEAD, WORDS = "language_model.lm_head.weight", "language_model.model.embed_tokens.weight"


@pytest.fixture(params=["no head", "no words", "shared", "computed"])
def variants(request, tmp_path) -> tuple[Path, Path]:
    """A checkpoint with something left out or left over, and the same one with just its weights."""
    weights = tensors()  # in bfloat16, as whatever is not quantized in a 4-bit copy
    plain, other = _copy(tmp_path / "plain"), _copy(tmp_path / "other")
    text = json.loads((other / "config.json").read_text())["text_config"]
    _change(other / "config.json", text_config=text | {"tie_word_embeddings": request.param != "computed"})
    if request.param == "computed":  # as early versions of transformers stored it
        more = {
            "language_model.model.layers.0.self_attn.rotary_emb.inv_freq": torch.ones(8),
            "image_encoder.vision_model.embeddings.position_ids": torch.arange(50)[None],
        }
        save_file(weights | more, other / "model.safetensors", metadata={"format": "pt"})
    else:
        weights[HEAD] = weights[WORDS].clone()
        stored = weights | {HEAD: weights[WORDS]}  # in one place, where both are
        stored.pop({"no head": HEAD, "no words": WORDS}.get(request.param), None)
        torch.save(stored, other / "pytorch_model.bin")
    save_file(weights, plain / "model.safetensors", metadata={"format": "pt"})
    return plain, other


def _p_yes(folder: Path | str, *options: str) -> float:
    call = ("ask", GOLDEN / "images" / "tiny_50x37.png", QUESTION, "-m", folder, "--json", *options)
    return dragonfly(*call).json["probabilities"]["yes"]


def test_tied_heads_and_computed_numbers_are_the_same_to_whoever_opens_them(variants, models_folder):
    plain, other = variants
    assert dragonfly("model", "convert", other, "--name", "mine", "--keep", "both").code == 0
    for bits in ("none", "4bit"):
        expected = _p_yes(plain, "--quant", bits)
        assert _p_yes(other, "--quant", bits) == _p_yes("mine", "--quant", bits) == expected


def test_tied_heads_and_computed_numbers_do_not_end_a_training(variants, tmp_path):
    _, other = variants
    rows, tuned = make_data(tmp_path) / "rows.jsonl", tmp_path / "tuned"
    outcome = finetune(rows, tuned, "--recipe", "language", "--steps", "1", "--lr", "1e-3", model=other)
    assert outcome.code == 0, outcome.stderr
    assert _p_yes(tuned) != _p_yes(other)
    before, after = (DragonflyForCausalLM.from_pretrained(folder).state_dict() for folder in (other, tuned))
    tied = [torch.equal(weights[HEAD], weights[WORDS]) for weights in (before, after)]
    assert tied == [DragonflyConfig.from_pretrained(other).text_config.tie_word_embeddings] * 2


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
    _assert_refused(DragonflyForCausalLM, folder, "model.safetensors is damaged")


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
