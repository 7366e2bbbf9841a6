"""What cannot be loaded, or does not fit, is told in two lines with its exit code, by the real command."""

import json
import os
import pickle
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from make_files import GOLDEN
from PIL import Image
from run_dragonfly import dragonfly, expect_error
from safetensors.torch import load_file, save_file

from dragonfly_med import DragonflyForCausalLM
from dragonfly_med.quantization import write_quantized

FULL = GOLDEN / "v1" / "checkpoint"
QUESTION = "Is there necrosis?"
NORM = "language_model.model.norm.weight"


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    """A checkpoint to break."""
    shutil.copytree(FULL, tmp_path / "checkpoint")
    return tmp_path / "checkpoint"


@pytest.fixture
def sharded(tmp_path: Path) -> Path:
    shutil.copytree(FULL, tmp_path / "sharded")
    (tmp_path / "sharded" / "model.safetensors").unlink()
    DragonflyForCausalLM.from_pretrained(FULL).save_pretrained(tmp_path / "sharded", max_shard_size="200KB")
    shutil.copy(FULL / "config.json", tmp_path / "sharded")
    return tmp_path / "sharded"


class Payload:
    """Unpickling this would run code."""

    def __init__(self, place: Path) -> None:
        self._place = place

    def __reduce__(self) -> tuple[Callable, tuple]:
        return Path.touch, (self._place,)


def change_weights(folder: Path, change: Callable[[dict[str, torch.Tensor]], object]) -> None:
    tensors = {name: tensor.clone() for name, tensor in load_file(folder / "model.safetensors").items()}
    change(tensors)
    save_file(tensors, folder / "model.safetensors")


def change_config(folder: Path, **changes: object) -> None:
    file = folder / "config.json"
    file.write_text(json.dumps(json.loads(file.read_text()) | changes))


def refused(photo: Path, folder: Path, *words: str) -> None:
    """Refused as it is with ``--quant none`` and, where the weights are the trouble, with ``4bit`` as well."""
    for quant in ("none", "4bit"):
        outcome = dragonfly("ask", photo, QUESTION, "-m", f"{folder}/", "--quant", quant)
        expect_error(outcome, 5, str(folder), *words)
        assert outcome.error_lines[0].count(str(folder)) == 1


def test_a_missing_weight(photo: Path, checkpoint: Path) -> None:
    change_weights(checkpoint, lambda tensors: tensors.pop(NORM))
    refused(photo, checkpoint, NORM, "is missing")


def test_a_weight_too_many(photo: Path, checkpoint: Path) -> None:
    change_weights(checkpoint, lambda tensors: tensors.update({"surplus": torch.zeros(2)}))
    refused(photo, checkpoint, "surplus", "is not part of the network")


def test_a_weight_of_another_shape(photo: Path, checkpoint: Path) -> None:
    change_weights(checkpoint, lambda tensors: tensors.update({NORM: torch.zeros(7)}))
    refused(photo, checkpoint, NORM, "has another shape")


@pytest.mark.parametrize("question", [QUESTION, "What is this?"])
def test_weights_that_give_no_numbers(photo: Path, checkpoint: Path, question: str) -> None:
    """They gave a confident no, and text of exclamation marks."""
    change_weights(checkpoint, lambda tensors: tensors[NORM].fill_(float("nan")))
    expect_error(dragonfly("ask", photo, question, "-m", checkpoint), 5, str(checkpoint), "no number", "float32")


@pytest.mark.parametrize("kind", [torch.int32, torch.bool, torch.complex64], ids=str)
def test_weights_of_another_kind_of_number(photo: Path, checkpoint: Path, kind: torch.dtype) -> None:
    """They were cast, and answered."""
    change_weights(checkpoint, lambda tensors: tensors.update({NORM: tensors[NORM].to(kind)}))
    refused(photo, checkpoint, NORM, "no floating-point numbers", str(kind).removeprefix("torch."))


def test_a_clone_without_git_lfs(photo: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")
    refused(photo, checkpoint, "model.safetensors", "git lfs pull")


def test_a_description_of_the_encoder_outside_of_the_folder(photo: Path, checkpoint: Path) -> None:
    outside = shutil.copytree(checkpoint / "image_encoder", checkpoint.parent / "outside")
    for name in (str(outside), "../outside"):
        change_config(checkpoint, image_encoder=name, vision_config=None)
        refused(photo, checkpoint, "unknown vision encoder", name)


def test_a_configuration_without_an_end(photo: Path, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("[" * 10**5)
    refused(photo, checkpoint, "config.json")
    (checkpoint / "config.json").unlink()
    os.mkfifo(checkpoint / "config.json")  # whoever opened it would wait for ever
    refused(photo, checkpoint, "no config.json")


def test_a_folder_that_may_not_be_read(photo: Path, checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    is_file = Path.is_file

    def refuse(path: Path) -> bool:
        if path.parent == checkpoint:
            raise PermissionError(13, "Permission denied")
        return is_file(path)

    monkeypatch.setattr(Path, "is_file", refuse)
    refused(photo, checkpoint, "Permission denied")


def test_more_layers_than_can_be(photo: Path, checkpoint: Path) -> None:
    change_config(checkpoint, text_config={"num_hidden_layers": 10**9})
    refused(photo, checkpoint, "1000000000 layers")


def test_a_truncated_file(photo: Path, checkpoint: Path) -> None:
    content = (checkpoint / "model.safetensors").read_bytes()
    (checkpoint / "model.safetensors").write_bytes(content[: len(content) // 2])
    refused(photo, checkpoint, "model.safetensors is damaged")


def test_a_truncated_pickle(photo: Path, checkpoint: Path) -> None:
    torch.save(load_file(checkpoint / "model.safetensors"), checkpoint / "pytorch_model.bin")
    (checkpoint / "model.safetensors").unlink()
    content = (checkpoint / "pytorch_model.bin").read_bytes()
    (checkpoint / "pytorch_model.bin").write_bytes(content[: len(content) // 2])
    refused(photo, checkpoint)


def test_a_pickle_that_would_run_code(photo: Path, checkpoint: Path, tmp_path: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save({NORM: Payload(tmp_path / "was run")}, checkpoint / "pytorch_model.bin")
    refused(photo, checkpoint, "something other than tensors")
    (checkpoint / "pytorch_model.bin").write_bytes(pickle.dumps(Payload(tmp_path / "was run")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a third line on stderr
        refused(photo, checkpoint, "something other than tensors")
    assert not (tmp_path / "was run").exists()


def test_a_pickle_of_something_else(photo: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    torch.save([torch.zeros(2)], checkpoint / "pytorch_model.bin")
    refused(photo, checkpoint)


def test_an_index_that_names_a_missing_shard(photo: Path, sharded: Path) -> None:
    shard = sorted(sharded.glob("model-0*.safetensors"))[1]
    shard.unlink()
    refused(photo, sharded, shard.name)


def test_a_broken_index(photo: Path, sharded: Path) -> None:
    (sharded / "model.safetensors.index.json").write_text('{"weight_map": ')
    refused(photo, sharded)


def test_no_weights_at_all(photo: Path, checkpoint: Path) -> None:
    (checkpoint / "model.safetensors").unlink()
    refused(photo, checkpoint, "there is no model.safetensors and no pytorch_model.bin")


@pytest.mark.parametrize("model_type", ["llama", "nonesuch", None])
def test_an_unknown_model_type(photo: Path, checkpoint: Path, model_type: str | None) -> None:
    change_config(checkpoint, model_type=model_type)
    refused(photo, checkpoint, f"model_type {model_type}")


def test_a_configuration_that_is_no_json(photo: Path, checkpoint: Path) -> None:
    (checkpoint / "config.json").write_text("{")
    refused(photo, checkpoint, "configuration")


@pytest.mark.parametrize(
    "wrong",
    [{"num_attention_heads": 0}, {"hidden_size": "many"}, {"hidden_size": -64}, {"num_hidden_layers": None}],
    ids=str,
)
def test_a_configuration_with_impossible_numbers(photo: Path, checkpoint: Path, wrong: dict) -> None:
    text = json.loads((checkpoint / "config.json").read_text())["text_config"]
    change_config(checkpoint, text_config=text | wrong)
    refused(photo, checkpoint)


def test_a_configuration_of_another_form(photo: Path, checkpoint: Path) -> None:
    change_config(checkpoint, text_config="llama")
    refused(photo, checkpoint)
    (checkpoint / "config.json").write_text("[]")
    refused(photo, checkpoint)


def test_four_bit_weights_do_not_become_full_ones(photo: Path, tmp_path: Path) -> None:
    write_quantized(FULL, tmp_path / "small")
    expect_error(dragonfly("ask", photo, QUESTION, "-m", tmp_path / "small", "--quant", "none"), 2, "stored in 4 bit")


def test_flash_attention_on_a_cpu(photo: Path) -> None:
    call = ("ask", photo, QUESTION, "-m", FULL, "--device", "cpu", "--attn", "flash")
    expect_error(dragonfly(*call), 2, "--attn flash", "NVIDIA")


def test_a_word_that_is_no_choice(photo: Path) -> None:
    expect_error(dragonfly("ask", photo, QUESTION, "-m", FULL, "--quant", "8bit"), 2, "--quant")
    expect_error(dragonfly("ask", photo, QUESTION, "-m", FULL, "--attn", "paged"), 2, "--attn")
