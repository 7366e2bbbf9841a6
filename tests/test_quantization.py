"""4-bit weights on a CPU: what is written, that it opens, and that it computes what its weights say."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from make_files import GOLDEN
from PIL import Image
from run_dragonfly import dragonfly
from safetensors.torch import load_file, save_file
from transformers import PreTrainedModel

from dragonfly_med import CheckpointError, DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med import quantization as quantization_module
from dragonfly_med.loading import is_quantized, weight_files
from dragonfly_med.quantization import (
    KEPT_MODULES,
    quantized_weights,
    quietly_import_bitsandbytes,
    write_quantized,
)
from dragonfly_med.quantized_loading import open_in_4_bit

pytest.importorskip("bitsandbytes")

VERSIONS = ("v1", "v2")
LINEARS_OF_A_LAYER = 7
A_LINEAR = "language_model.model.layers.1.mlp.up_proj.weight"


def full_folder(version: str) -> Path:
    return GOLDEN / version / "checkpoint"


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """The golden checkpoints in 4 bit."""
    parent = tmp_path_factory.mktemp("quantized")
    for version in VERSIONS:
        write_quantized(full_folder(version), parent / version)
    return {version: parent / version for version in VERSIONS}


def all_tensors(folder: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in weight_files(folder) for name, tensor in load_file(file).items()}


def dequantized(name: str, tensors: dict[str, torch.Tensor]) -> torch.Tensor:
    functional = quietly_import_bitsandbytes().functional
    parts = {key.removeprefix(f"{name}."): value for key, value in tensors.items() if key.startswith(f"{name}.")}
    state = functional.QuantState.from_dict(parts, torch.device("cpu"))
    return functional.dequantize_4bit(tensors[name], state, quant_type="nf4")


@pytest.mark.parametrize("version", VERSIONS)
def test_only_the_language_model_s_linears_are_quantized(small: dict[str, Path], version: str) -> None:
    network = DragonflyForCausalLM.from_pretrained(full_folder(version))
    linears = quantized_weights(network)
    assert len(linears) == LINEARS_OF_A_LAYER * network.config.text_config.num_hidden_layers
    before, after = load_file(full_folder(version) / "model.safetensors"), all_tensors(small[version])
    assert {name for name, tensor in after.items() if tensor.dtype == torch.uint8 and name in before} == linears
    for name, tensor in before.items():
        if name in linears:
            assert not set(KEPT_MODULES) & set(name.split("."))
            # 16 levels between -absmax and absmax: the widest gap is 0.31 of the block's largest weight
            assert (dequantized(name, after) - tensor).abs().max() < 0.16 * tensor.abs().max()
        else:
            assert torch.equal(after[name], tensor.bfloat16())


@pytest.mark.parametrize("version", VERSIONS)
def test_it_computes_what_its_dequantized_weights_compute(small: dict[str, Path], version: str) -> None:
    """Compared with itself in float32, because the loss by quantization is not what is tested."""
    quantized = DragonflyForCausalLM.from_pretrained(small[version], dtype=torch.float32)
    plain = DragonflyForCausalLM.from_pretrained(full_folder(version), dtype=torch.float32).eval()
    tensors = all_tensors(small[version])
    linears = quantized_weights(plain)
    plain.load_state_dict(
        {name: dequantized(name, tensors) if name in linears else tensors[name] for name in plain.state_dict()}
    )
    inputs = golden_inputs(version)
    expected = plain.generate(**inputs, max_new_tokens=8, do_sample=False)
    assert torch.equal(quantized.generate(**inputs, max_new_tokens=8, do_sample=False), expected)
    with torch.inference_mode():
        logits, reference = quantized(**inputs).logits[:, -1], plain(**inputs).logits[:, -1]
    assert (logits - reference).norm() < 1e-2 * reference.norm()


@pytest.mark.parametrize("version", VERSIONS)
def test_quantizing_at_load_gives_the_same_network(small: dict[str, Path], version: str) -> None:
    stored, quantized = open_in_4_bit(small[version]), open_in_4_bit(full_folder(version))
    first, second = stored.state_dict(), quantized.state_dict()
    assert first.keys() == second.keys()
    assert all(torch.equal(tensor, second[name]) for name, tensor in first.items())
    assert not any(tensor.is_meta for tensor in [*stored.parameters(), *stored.buffers()])
    for name, buffer in DragonflyForCausalLM.from_pretrained(full_folder(version)).named_buffers():
        assert torch.equal(stored.get_buffer(name), buffer), name


@torch.inference_mode()
def test_a_record_says_in_which_numbers_4_bit_products_are_computed(small: dict[str, Path]) -> None:
    """A CPU with AVX512-BF16 rounds them, and the record said float32."""
    linear = open_in_4_bit(small["v1"], torch.float32).get_submodule(A_LINEAR.removesuffix(".weight"))
    inputs = torch.linspace(-1, 1, linear.in_features)[None]
    exact = inputs @ dequantized(A_LINEAR, all_tensors(small["v1"])).float().T
    error = (linear(inputs) - exact).norm() / exact.norm()
    call = ("ask", GOLDEN / "images" / "tiny_50x37.png", "Is it?", "--device", "cpu", "--json", "-m")
    assert dragonfly(*call, small["v1"]).json["model"]["dtype"] == ("bfloat16" if error > 1e-4 else "float32")
    assert dragonfly(*call, full_folder("v1")).json["model"]["dtype"] == "float32"


def test_a_card_without_bfloat16_never_meets_it(small: dict[str, Path]) -> None:
    network = open_in_4_bit(small["v1"], torch.float16)
    linears = quantized_weights(network)
    assert {network.get_parameter(name).quant_state.dtype for name in linears} == {torch.float16}
    assert {weight.dtype for weight in network.parameters()} == {torch.float16, torch.uint8}


def test_saved_by_transformers_and_opened_again(small: dict[str, Path], tmp_path: Path) -> None:
    open_in_4_bit(small["v1"]).save_pretrained(tmp_path / "saved")
    again = open_in_4_bit(tmp_path / "saved").state_dict()
    assert all(torch.equal(tensor, again[name]) for name, tensor in open_in_4_bit(small["v1"]).state_dict().items())


def test_transformers_own_loader_opens_it(small: dict[str, Path]) -> None:
    pytest.importorskip("accelerate")
    theirs, info = PreTrainedModel.from_pretrained.__func__(
        DragonflyForCausalLM, small["v1"], dtype=torch.bfloat16, output_loading_info=True
    )
    assert not any(info[kind] for kind in ("missing_keys", "unexpected_keys", "mismatched_keys"))
    ours = open_in_4_bit(small["v1"]).state_dict()
    assert all(torch.equal(tensor, ours[name]) for name, tensor in theirs.state_dict().items())


@pytest.mark.parametrize(
    ("name", "value", "words"),
    [
        (f"{A_LINEAR}.absmax", None, "is missing"),
        (f"{A_LINEAR}.absmax", torch.zeros(3, dtype=torch.uint8), "has another shape"),
        (A_LINEAR, torch.zeros(8, 1, dtype=torch.uint8), "has another shape"),
        ("vision_embed_tokens.bias", None, "is missing"),
        ("surplus.weight", torch.zeros(1), "is not part of the network"),
        (f"{A_LINEAR}.quant_state.bitsandbytes__nf4", torch.zeros(4, dtype=torch.uint8), "cannot be read"),
    ],
)
def test_a_broken_4_bit_checkpoint_is_refused_by_name(small, tmp_path, name, value, words) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small["v1"], broken)
    replace_weights(broken, {name: value})
    with pytest.raises(CheckpointError, match=words):
        open_in_4_bit(broken)


def test_a_blob_that_lies_about_the_shape_is_refused(small: dict[str, Path], tmp_path: Path) -> None:
    broken = tmp_path / "broken"
    shutil.copytree(small["v1"], broken)
    blob = f"{A_LINEAR}.quant_state.bitsandbytes__nf4"
    content = json.loads(bytes(all_tensors(broken)[blob].tolist())) | {"shape": [4096, 4096]}
    replace_weights(broken, {blob: torch.tensor(list(json.dumps(content).encode()), dtype=torch.uint8)})
    with pytest.raises(CheckpointError, match="another shape"):
        open_in_4_bit(broken)


def test_another_kind_of_quantization_is_refused(small: dict[str, Path], tmp_path: Path) -> None:
    shutil.copytree(small["v1"], tmp_path / "other")
    file = tmp_path / "other" / "config.json"
    file.write_text(file.read_text().replace('"nf4"', '"fp4"'))
    with pytest.raises(CheckpointError, match="NF4"):
        open_in_4_bit(tmp_path / "other")


def test_several_shards_in_and_out_hold_the_same_bytes(small, tmp_path, monkeypatch) -> None:
    sharded = tmp_path / "sharded"
    DragonflyForCausalLM.from_pretrained(full_folder("v1")).save_pretrained(sharded, max_shard_size="100KB")
    assert len(weight_files(sharded)) > 2
    monkeypatch.setattr(quantization_module, "_SHARD_BYTES", 50_000)
    write_quantized(sharded, tmp_path / "out")
    assert len(weight_files(tmp_path / "out")) > 2
    expected, written = all_tensors(small["v1"]), all_tensors(tmp_path / "out")
    assert expected.keys() == written.keys()
    assert all(torch.equal(tensor, written[name]) for name, tensor in expected.items())


@pytest.mark.parametrize("zipped", [True, False])
def test_pickled_tensors_give_the_same_bytes(small, tmp_path, zipped: bool) -> None:
    pickled = copy_with(tmp_path / "pickled", {})
    (pickled / "model.safetensors").unlink()
    tensors = load_file(full_folder("v1") / "model.safetensors")
    torch.save(tensors, pickled / "pytorch_model.bin", _use_new_zipfile_serialization=zipped)
    write_quantized(pickled, tmp_path / "out")
    written = all_tensors(tmp_path / "out")
    assert all(torch.equal(tensor, written[name]) for name, tensor in all_tensors(small["v1"]).items())


def test_the_folder_says_that_it_is_quantized_and_keeps_the_tokenizer(small: dict[str, Path]) -> None:
    assert not is_quantized(full_folder("v1"))
    assert is_quantized(small["v1"])
    settings = json.loads((small["v1"] / "config.json").read_text())["quantization_config"]
    assert settings["quant_method"] == "bitsandbytes"
    assert (settings["load_in_4bit"], settings["bnb_4bit_quant_type"]) == (True, "nf4")
    assert settings["bnb_4bit_use_double_quant"]
    assert settings["llm_int8_skip_modules"] == list(KEPT_MODULES)
    names = [path.name for path in small["v1"].iterdir()]
    assert "tokenizer.json" in names and "generation_config.json" in names


def test_what_is_incomplete_is_refused_and_nothing_is_left(tmp_path: Path) -> None:
    broken = copy_with(tmp_path / "broken", {"vision_embed_tokens.bias": None})
    with pytest.raises(CheckpointError, match=r"vision_embed_tokens\.bias is missing"):
        write_quantized(broken, tmp_path / "out")
    assert [path.name for path in tmp_path.iterdir()] == ["broken"]


def test_what_is_quantized_or_there_already_is_refused(small, tmp_path) -> None:
    with pytest.raises(CheckpointError, match="already"):
        write_quantized(small["v1"], tmp_path / "out")
    (tmp_path / "there").mkdir()
    with pytest.raises(FileExistsError):
        write_quantized(full_folder("v1"), tmp_path / "there")


def copy_with(folder: Path, changes: dict[str, torch.Tensor | None]) -> Path:
    """A copy of the golden v1 checkpoint with some weights replaced, or with None left out."""
    shutil.copytree(full_folder("v1"), folder)
    return replace_weights(folder, changes)


def replace_weights(folder: Path, changes: dict[str, torch.Tensor | None]) -> Path:
    file = folder / "model.safetensors"
    tensors = {name: tensor.clone() for name, tensor in load_file(file).items()} | changes
    save_file({name: tensor for name, tensor in tensors.items() if tensor is not None}, file)
    return folder


def golden_inputs(version: str):
    processor = DragonflyProcessor.from_pretrained(full_folder(version))
    image = Image.open(GOLDEN / "images" / "tiny_50x37.png")
    return processor(text=[processor.prompt("Is there necrosis?")], images=[image], return_tensors="pt")
