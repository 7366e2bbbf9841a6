"""Answers that are written together are those that are written one by one."""

from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest
import torch
from layer_calls import room_for, rows_written
from make_files import GOLDEN
from PIL import Image
from transformers.models.llama.modeling_llama import LlamaDecoderLayer

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.option_values import Attention
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor, NoNumbersError
from dragonfly_med.generation import Grammar, Reading, Sampling, decode
from dragonfly_med.joint import Start, decode_together
from dragonfly_med.quantization import write_quantized
from dragonfly_med.quantized_loading import open_in_4_bit

ASKED = ("What is it?", "Provide a brief description of the given image.", "Name the organ, the stain and the finding.")
pytestmark = pytest.mark.usefixtures("one_thread")
Prompt = tuple[Reading, list[int]]
NewGrammar = Callable[[], Grammar] | None


class EvenTokens:
    """So many of even numbers, and then the end."""

    def __init__(self, count: int, stop: list[int]) -> None:
        self._left = count
        self._stop = stop

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        places = torch.arange(len(logits))
        is_stop = torch.isin(places, torch.tensor(self._stop))
        allowed = (places % 2 == 0) & ~is_stop if self._left else is_stop
        return logits.masked_fill(~allowed, float("-inf"))

    def accept(self, token: int) -> None:
        assert token % 2 == 0
        self._left -= 1


@pytest.fixture(scope="module", params=["v1", "v2"])
def prompts(request: pytest.FixtureRequest) -> list[Prompt]:
    """Of a network with random weights: three about each of two pictures, and one, much shorter, about none."""
    folder = GOLDEN / request.param / "checkpoint"
    network = DragonflyForCausalLM.from_pretrained(folder).eval()
    return prompts_of(network, DragonflyProcessor.from_pretrained(folder))


def prompts_of(network: DragonflyForCausalLM, processor: DragonflyProcessor) -> list[Prompt]:
    pictures = [Image.open(GOLDEN / "images" / name) for name in ("gray_512x384.png", "tall_1to6_300x1800.png")]
    readings = [Reading(network, processor.image_block(), processor.pixels(picture)) for picture in pictures]
    texts = [processor.text_ids(processor.prompt(asked)) for asked in ASKED]
    return [(reading, ids) for reading in readings for ids in texts] + [(Reading(network, [], None), texts[0])]


def alone(prompts: list[Prompt], sampling: Sampling, grammars: list[NewGrammar]) -> list[list[int]]:
    each = zip(prompts, grammars, strict=True)
    return [list(decode(*prompt, sampling, grammar() if grammar else None)) for prompt, grammar in each]


def together(
    prompts: list[Prompt], sampling: Sampling, grammars: list[NewGrammar]
) -> tuple[list[list[int]], list[int]]:
    """And how many were written in each pass."""
    starts = [Start(reading.prefilled(ids), new) for (reading, ids), new in zip(prompts, grammars, strict=True)]
    with rows_written() as rows:
        return decode_together(prompts[0][0].model, starts, sampling), rows


@pytest.mark.parametrize("temperature", [0.0, 1.5])
@pytest.mark.parametrize("seed", [0, 4])
def test_every_answer_is_its_own(prompts: list[Prompt], temperature: float, seed: int) -> None:
    sampling, free = Sampling(12, temperature, seed), [None] * len(prompts)
    written, _ = together(prompts, sampling, free)
    assert written == alone(prompts, sampling, free)
    assert len(set(map(tuple, written))) > 1


@pytest.mark.parametrize("temperature", [0.0, 1.5])
def test_each_has_its_grammar_and_its_end_and_the_others_go_on(prompts: list[Prompt], temperature: float) -> None:
    stop = prompts[0][0].model.config.stop_token_ids
    grammars: list[NewGrammar] = [partial(EvenTokens, count, stop) for count in (0, 3, 99, 99, 1, 3, 70)]
    grammars[2] = None
    sampling = Sampling(70, temperature, 3)  # more than a cache has room for at first
    written, rows = together(prompts, sampling, grammars)
    assert list(map(len, written)) == [0, 3, len(written[2]), 70, 1, 3, 70]
    assert rows[0] == 6 and rows[-1] <= 3  # who has ended takes no time any more
    assert written == alone(prompts, sampling, grammars)


@pytest.mark.parametrize("most", [3, 1])
def test_short_of_memory_fewer_are_written_at_a_time(prompts: list[Prompt], most: int) -> None:
    sampling, free = Sampling(6, 1.5, 1), [None] * len(prompts)
    usual, _ = together(prompts, sampling, free)
    starts = [Start(reading.prefilled(ids)) for reading, ids in prompts]
    with room_for(LlamaDecoderLayer, 0, most), rows_written() as tried:
        assert decode_together(prompts[0][0].model, starts, sampling) == usual
    assert tried[0] == 7 and {rows for rows in tried if rows <= most} == {1, most}
    with room_for(LlamaDecoderLayer, 0, 0), pytest.raises(torch.OutOfMemoryError):
        decode_together(prompts[0][0].model, starts[:1], sampling)


def test_numbers_that_are_none_are_not_written_as_answers(prompts: list[Prompt]) -> None:
    network = prompts[0][0].model
    starts = [Start(reading.prefilled(ids)) for reading, ids in prompts]
    scale = network.language_model.model.norm.weight
    with torch.no_grad():
        before = scale[0].clone()
        scale[0] = float("inf")
        try:
            with pytest.raises(NoNumbersError, match="float32"):
                decode_together(network, starts, Sampling(2))
        finally:
            scale[0] = before


def built_in(attention: Attention, dtype: torch.dtype = torch.float32) -> Model:
    model = load_model(find_checkpoint("demo"), "cpu", attn=attention)
    model.network.to(dtype)
    return model


def in_4_bit(folder: Path) -> DragonflyForCausalLM:
    pytest.importorskip("bitsandbytes")
    write_quantized(find_checkpoint("demo").folder, folder)
    return open_in_4_bit(folder)


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["float32", "eager", "bfloat16", "nf4"])
def test_the_built_in_model_writes_together_what_it_writes_alone(kind: str, tmp_path: Path) -> None:
    attention = Attention.eager if kind == "eager" else Attention.sdpa
    model = built_in(attention, torch.bfloat16 if kind == "bfloat16" else torch.float32)
    network = in_4_bit(tmp_path / "nf4") if kind == "nf4" else model.network
    prompts = prompts_of(network, model.processor)[:4]
    for sampling in (Sampling(6), Sampling(40, 0.5, 2)):
        written, _ = together(prompts, sampling, [None] * len(prompts))
        assert written == alone(prompts, sampling, [None] * len(prompts))
    assert len({len(ids) for ids in written}) > 1
