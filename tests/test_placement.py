"""Where and how a model runs: decided by the options and by what the card has, before any weight is read."""

import sys
from contextlib import nullcontext
from pathlib import Path

import pytest
import torch
from batch_runs import rows_of
from make_files import GOLDEN
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.engine import model as model_module
from dragonfly_cli.engine import placement
from dragonfly_cli.engine.checkpoints import Checkpoint, find_checkpoint
from dragonfly_cli.engine.model import load_model
from dragonfly_cli.engine.placement import choose_attention, place
from dragonfly_cli.errors import UsageError
from dragonfly_cli.option_values import Attention, Quant
from dragonfly_med import DragonflyForCausalLM
from dragonfly_med.device_memory import device_memory_needed
from dragonfly_med.quantization import read_config, write_quantized

FULL = GOLDEN / "v1" / "checkpoint"
QUESTION = "Is there necrosis?"
GPU = torch.device("cuda")


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.new("RGB", (64, 48), "red").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def pretend_card(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """Makes PyTorch say that there is a card; nothing can be computed on it."""
    card = {"free": 20 * 10**9, "total": 24 * 10**9, "bf16": 1, "major": 8}
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 1)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (card["free"], card["total"]))
    monkeypatch.setattr(torch.cuda, "device", nullcontext)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation=True: including_emulation or bool(card["bf16"])
    )
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (card["major"], 0))
    return card


@pytest.fixture
def flash_installed(monkeypatch: pytest.MonkeyPatch) -> None:
    real = placement.find_spec
    monkeypatch.setattr(placement, "find_spec", lambda name: name if name == "flash_attn" else real(name))
    monkeypatch.setattr(placement, "_can_import_flash", lambda: True)


def test_a_record_says_how_many_bits_answered(photo: Path) -> None:
    pytest.importorskip("bitsandbytes")
    full, small = (
        dragonfly("ask", photo, QUESTION, "-m", FULL, "--quant", quant, "--json").json for quant in ("auto", "4bit")
    )
    assert (full["model"]["quantization"], small["model"]["quantization"]) == ("none", "nf4")
    assert full["probabilities"] != small["probabilities"]
    assert full["probabilities"]["yes"] == pytest.approx(small["probabilities"]["yes"], abs=0.2)


def test_a_4_bit_folder_answers_as_the_same_weights_quantized_at_load(photo: Path, tmp_path: Path) -> None:
    pytest.importorskip("bitsandbytes")
    write_quantized(FULL, tmp_path / "small")
    stored = dragonfly("ask", photo, QUESTION, "-m", tmp_path / "small", "--json").json
    made = dragonfly("ask", photo, QUESTION, "-m", FULL, "--quant", "4bit", "--json").json
    assert stored["model"]["quantization"] == "nf4"
    # at load the layers that stay are not rounded to bfloat16 first; how much that is depends on the kernels
    assert stored["probabilities"]["yes"] == pytest.approx(made["probabilities"]["yes"], abs=2e-2)


def test_without_bitsandbytes_a_cpu_still_answers(photo: Path, tmp_path: Path, monkeypatch) -> None:
    pytest.importorskip("bitsandbytes")
    write_quantized(FULL, tmp_path / "small")
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)  # importing it fails now, and it cannot be found
    assert dragonfly("ask", photo, QUESTION, "-m", FULL).code == 0
    expect_error(dragonfly("ask", photo, QUESTION, "-m", tmp_path / "small"), 5, "bitsandbytes is not installed")
    expect_error(dragonfly("ask", photo, QUESTION, "-m", FULL, "--quant", "4bit"), 2, "bitsandbytes")


@pytest.mark.parametrize("attn", ["auto", "sdpa", "eager"])
def test_every_kernel_of_a_cpu_gives_the_same_answer(photo: Path, attn: str) -> None:
    record = dragonfly("ask", photo, QUESTION, "-m", FULL, "--attn", attn, "--json").json
    expected = dragonfly("ask", photo, QUESTION, "-m", FULL, "--json").json
    assert record["probabilities"]["yes"] == pytest.approx(expected["probabilities"]["yes"], abs=1e-4)


@pytest.mark.parametrize("attn", ["sdpa", "eager"])
@pytest.mark.parametrize("quant", [Quant.none, Quant.four_bit])
def test_the_kernel_reaches_both_halves_of_the_network(attn: str, quant: Quant) -> None:
    network = load_model(Checkpoint("x", FULL), "cpu", quant, Attention(attn)).network
    assert network.config.text_config._attn_implementation == attn
    assert network.config.vision_config._attn_implementation == attn
    assert network.language_model.config._attn_implementation == attn


def test_a_small_model_is_not_put_into_4_bit_by_itself(pretend_card) -> None:
    assert not place(Checkpoint("x", FULL), "auto", Quant.auto, Attention.auto).quantized
    assert not place(find_checkpoint("demo"), "auto", Quant.auto, Attention.auto).quantized
    assert place(Checkpoint("x", FULL), "auto", Quant.four_bit, Attention.auto).quantized


def test_auto_is_4_bit_and_bfloat16_on_a_card(pretend_card, monkeypatch) -> None:
    monkeypatch.setattr(placement, "device_memory_needed", lambda config, quantized: (18 - 11 * quantized) * 10**9)
    chosen = place(Checkpoint("x", FULL), "auto", Quant.auto, Attention.auto)
    assert (chosen.device, chosen.quantized, chosen.dtype, chosen.attention) == (GPU, True, torch.bfloat16, "sdpa")
    assert not place(Checkpoint("x", FULL), "auto", Quant.none, Attention.auto).quantized
    assert not place(Checkpoint("x", FULL), "cpu", Quant.auto, Attention.auto).quantized


def test_a_card_without_bfloat16_takes_float16(pretend_card) -> None:
    pretend_card["bf16"] = 0
    assert place(Checkpoint("x", FULL), "cuda:0", Quant.auto, Attention.auto).dtype == torch.float16


def test_flash_attention_is_taken_where_it_is_installed_and_the_card_can(pretend_card, flash_installed) -> None:
    assert choose_attention(GPU, Attention.auto) == "flash_attention_2"
    assert choose_attention(GPU, Attention.sdpa) == "sdpa"
    assert choose_attention(torch.device("cpu"), Attention.auto) == "sdpa"
    pretend_card["major"] = 7
    assert choose_attention(GPU, Attention.auto) == "sdpa"
    with pytest.raises(UsageError, match="Ampere"):
        choose_attention(GPU, Attention.flash)


def test_too_little_memory_is_told_before_loading(photo, pretend_card, monkeypatch) -> None:
    """The golden network needs little more than the overhead."""
    monkeypatch.setattr(model_module, "_open", lambda *_: pytest.fail("weights were read"))
    pretend_card["free"] = 10**8
    outcome = dragonfly("ask", photo, QUESTION, "-m", FULL, "--device", "cuda")
    expect_error(outcome, 6, "needs 0.4 GB", "0.1 GB of 24.0 GB are free")
    assert "would fit" in outcome.error_lines[1]


@pytest.mark.parametrize(
    ("said", "told"),
    [("out of memory", "out of memory on cuda"), ("unknown error", "cuda cannot go on: ")],
)
def test_a_card_that_fails_is_no_bug(photo, pretend_card, monkeypatch, said: str, told: str) -> None:
    """One that others fill fails where it is first asked, with an error of the driver's."""

    def fail(device: object) -> None:
        raise RuntimeError(f"CUDA error: {said}\nCUDA kernel errors might be asynchronously reported")

    monkeypatch.setattr(torch.cuda, "mem_get_info", fail)
    expect_error(dragonfly("ask", photo, QUESTION, "-m", FULL, "--device", "cuda"), 6, told)


def test_a_card_that_pytorch_can_only_count_is_not_usable(photo, pretend_card, monkeypatch) -> None:
    """As with a driver that is too old for it."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    expect_error(dragonfly("ask", photo, QUESTION, "--device", "cuda"), 6, "no such GPU is usable")


def test_a_flash_attention_that_does_not_fit_is_passed_over(pretend_card, tmp_path, monkeypatch) -> None:
    (tmp_path / "flash_attn.py").write_text("raise ImportError('undefined symbol')\n")
    monkeypatch.syspath_prepend(tmp_path)
    assert choose_attention(GPU, Attention.auto) == "sdpa"
    with pytest.raises(UsageError, match="does not fit this PyTorch"):
        choose_attention(GPU, Attention.flash)


def test_after_a_card_has_failed_a_batch_ends_and_goes_on_later(tmp_path: Path) -> None:
    for number in range(4):
        Image.effect_noise((90, 60), 60 + number).convert("RGB").save(tmp_path / f"{number}.png")
    asked: list[object] = []

    def fail(module: torch.nn.Module, args: object, output: object) -> None:
        if isinstance(module, DragonflyForCausalLM):
            asked.append(output)
            if len(asked) > 1:
                raise RuntimeError("CUDA error: an illegal memory access was encountered\nand more")

    call = ("batch", tmp_path, "-q", QUESTION, "-m", FULL, "-o", tmp_path / "a.csv")
    handle = torch.nn.modules.module.register_module_forward_hook(fail)
    try:
        expect_error(dragonfly(*call), 6, "cannot go on: CUDA error: an illegal memory access was encountered")
    finally:
        handle.remove()
    assert [row["status"] for row in rows_of(tmp_path / "a.csv")] == ["ok"]
    assert dragonfly(*call).code == 0
    assert [row["status"] for row in rows_of(tmp_path / "a.csv")] == ["ok"] * 4


def test_the_hint_names_4_bit_when_that_would_fit(photo, pretend_card, monkeypatch) -> None:
    sizes = {True: 7 * 10**9, False: 18 * 10**9}
    monkeypatch.setattr(placement, "device_memory_needed", lambda config, quantized: sizes[quantized])
    pretend_card["free"] = 8 * 10**9
    outcome = dragonfly("ask", photo, QUESTION, "-m", FULL, "--device", "cuda", "--quant", "none")
    expect_error(outcome, 6, "18.0 GB", "8.0 GB of 24.0 GB")
    assert "--quant 4bit needs 7.0 GB and would fit" in outcome.error_lines[1]
    pretend_card["total"] = 6 * 10**9
    pretend_card["free"] = 5 * 10**9
    outcome = dragonfly("ask", photo, QUESTION, "-m", FULL, "--device", "cuda", "--quant", "4bit")
    assert "smaller model" in outcome.error_lines[1]


def test_4_bit_needs_less_memory() -> None:
    config = read_config(FULL)
    assert device_memory_needed(config, quantized=True) < device_memory_needed(config, quantized=False)


def test_a_batch_remembers_how_it_was_answered(photo: Path, tmp_path: Path) -> None:
    call = ("batch", photo, "-q", QUESTION, "-m", FULL, "-o", tmp_path / "answers.csv")
    assert dragonfly(*call, "--quant", "none").code == 0
    assert dragonfly(*call, "--quant", "none").code == 0
    expect_error(dragonfly(*call, "--quant", "4bit"), 7, "quant")
