"""The published networks at full size, without their weights: every name, every count, the real vocabulary."""

import base64
import json
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path

import pytest
from tokenizers.processors import TemplateProcessing
from transformers import PreTrainedTokenizerFast
from transformers.convert_slow_tokenizer import TikTokenConverter

from dragonfly_cli.engine.choices import yes_no_token_ids
from dragonfly_med import DragonflyProcessor
from dragonfly_med.device_memory import device_memory_needed
from dragonfly_med.quantization import empty_network, quantized_weights, read_config

ENCODERS = {"v1": "openai/clip-vit-base-patch32", "v2": "openai/clip-vit-large-patch14-336"}
PARAMETERS = {"v1": 8_120_867_072, "v2": 8_337_967_104}
ENCODER_LAYERS = {"v1": 12, "v2": 24}
LLAMA_LAYERS = 32

# Partial, as in the published files: what is not here follows from Llama's defaults.
TEXT_CONFIG = {
    "bos_token_id": 128000,
    "eos_token_id": 128001,
    "intermediate_size": 14336,
    "max_position_embeddings": 8192,
    "model_type": "llama",
    "num_key_value_heads": 8,
    "rms_norm_eps": 1e-05,
    "rope_theta": 500000.0,
    "torch_dtype": "bfloat16",
    "vocab_size": 128256,
}
# Left-overs of the published v1 that mean nothing.
LEFT_OVERS = {"hidden_dropout": 0.0, "partial_rotary_factor": 0.5, "qk_layernorm": False, "image_size": 300}

# What <|begin_of_text|> + the prompt for "Is there necrosis?" is in Llama 3's vocabulary.
NECROSIS_IDS = [128000, 128006, 882, 128007, 271, 3957, 1070, 19591, 63412, 30, 128009, 128006, 78191, 128007, 271]
SPECIAL_TOKENS = 256


@pytest.fixture(params=ENCODERS)
def version(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def config(version: str, tmp_path: Path):
    settings = {"model_type": "dragonfly", "image_encoder": ENCODERS[version], "rope_scaling": None}
    settings |= {"architectures": ["DragonflyForCausalLM"], "text_config": TEXT_CONFIG} | LEFT_OVERS
    (tmp_path / "config.json").write_text(json.dumps(settings))
    return read_config(tmp_path)


def published_names(version: str) -> set[str]:
    linear = ("weight", "bias")
    clip = "image_encoder.vision_model"
    names = {f"{clip}.embeddings.{name}" for name in ("class_embedding", "patch_embedding.weight")}
    names |= {f"{clip}.embeddings.position_embedding.weight", "language_model.lm_head.weight"}
    names |= {f"{clip}.{norm}.{part}" for norm in ("pre_layrnorm", "post_layernorm") for part in linear}
    names |= {f"vision_embed_tokens.{part}" for part in linear}
    inside = [f"self_attn.{name}_proj" for name in ("q", "k", "v", "out")]
    inside += ["layer_norm1", "layer_norm2", "mlp.fc1", "mlp.fc2"]
    for layer in range(ENCODER_LAYERS[version]):
        names |= {f"{clip}.encoder.layers.{layer}.{name}.{part}" for name in inside for part in linear}
    inside = [f"self_attn.{name}_proj" for name in "qkvo"] + [f"mlp.{name}_proj" for name in ("gate", "up", "down")]
    inside += ["input_layernorm", "post_attention_layernorm"]
    for layer in range(LLAMA_LAYERS):
        names |= {f"language_model.model.layers.{layer}.{name}.weight" for name in inside}
    return names | {"language_model.model.embed_tokens.weight", "language_model.model.norm.weight"}


def test_names_and_number_of_parameters_are_the_published(version: str, config) -> None:
    network = empty_network(config)
    assert set(network.state_dict()) == published_names(version)
    assert sum(weight.numel() for weight in network.parameters()) == PARAMETERS[version]
    assert config.architecture == f"dragonfly-{version}"


def test_seven_linears_of_every_layer_become_4_bit(config) -> None:
    network = empty_network(config)
    linears = quantized_weights(network)
    assert len(linears) == 7 * LLAMA_LAYERS
    assert sum(network.get_parameter(name).numel() for name in linears) == 6_979_321_856


@pytest.mark.parametrize("quantized", [True, False])
def test_memory_is_that_of_the_weights_and_a_little(version: str, config, quantized: bool) -> None:
    """Weights are 5.88 GB in v1 and 6.32 in v2 in 4 bit, and two bytes a parameter otherwise."""
    weights = {"v1": 5.88e9, "v2": 6.32e9}[version] if quantized else 2 * PARAMETERS[version]
    rest = device_memory_needed(config, quantized) - weights
    # cache 0.27 and 0.54 GB, activations 0.24 and 0.77, one dequantized weight 0.12, overhead 0.40
    expected = {"v1": 0.91e9, "v2": 1.71e9}[version] + (0.12e9 if quantized else 0)
    assert rest == pytest.approx(expected, abs=0.03e9)


@pytest.fixture(scope="module")
def llama_3() -> PreTrainedTokenizerFast:
    """Llama 3's tokenizer, from the vocabulary that PyPI's llama-models carries."""
    try:
        vocabulary = distribution("llama-models").locate_file("llama_models/llama3/tokenizer.model")
    except PackageNotFoundError:
        pytest.skip("llama-models is not installed")
    begin = "<|begin_of_text|>"
    tokenizer = _Converter(str(vocabulary), extra_special_tokens=special_tokens()).converted()
    # as in the published tokenizer.json
    tokenizer.post_processor = TemplateProcessing(single=f"{begin} $A", special_tokens=[(begin, 128000)])
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, bos_token=begin)


class _Converter(TikTokenConverter):
    @staticmethod
    def load_tiktoken_bpe(tiktoken_url: str) -> dict[bytes, int]:
        """The file is lines of ``base64 rank``; transformers would want another package to read them."""
        lines = Path(tiktoken_url).read_text(encoding="ascii").splitlines()
        return {base64.b64decode(token): int(rank) for token, rank in (line.split() for line in lines)}


def special_tokens() -> list[str]:
    """Llama 3's own names: from 128000 on, those without a meaning are reserved."""
    named = {0: "begin_of_text", 1: "end_of_text", 6: "start_header_id", 7: "end_header_id", 9: "eot_id"}
    reserved = iter(range(SPECIAL_TOKENS))
    return [
        f"<|{named[place]}|>" if place in named else f"<|reserved_special_token_{next(reserved)}|>"
        for place in range(SPECIAL_TOKENS)
    ]


def test_the_real_vocabulary_gives_the_published_prompt_ids(llama_3: PreTrainedTokenizerFast) -> None:
    processor = DragonflyProcessor(llama_3)
    assert processor.text_ids(processor.prompt("Is there necrosis?")) == NECROSIS_IDS
    assert (processor.image_token_id, processor.image_newline_token_id) == (128002, 128003)
    assert len(llama_3) == TEXT_CONFIG["vocab_size"]


def test_yes_and_no_are_single_tokens_of_the_real_vocabulary(llama_3: PreTrainedTokenizerFast) -> None:
    ids = yes_no_token_ids(llama_3)
    assert {9891, 9642} <= set(ids["yes"])
    assert {2201, 2822} <= set(ids["no"])
