"""Answering token by token: prefill once, then decode, one sample at a time.

``prefill`` reads the whole prompt, image included, and gives the logits of the first answer token; typed questions
need nothing more. ``decode`` yields answer ids until the model stops. Printing is the caller's business.
Equal to ``DragonflyForCausalLM.generate``, without its bookkeeping per token.
"""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from transformers import DynamicCache

from dragonfly_med.modeling import DragonflyForCausalLM
from dragonfly_med.processing import DragonflyProcessor

# A byte-level token may end in the middle of a character, which decodes to this until the rest has come.
_INCOMPLETE = "\ufffd"


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: ``temperature`` 0 is greedy, and then ``seed`` changes nothing."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


@dataclass
class Prefill:
    """A prompt that has been read: the next token's logits [vocabulary] float32, the cache, the crops zoomed in on."""

    logits: torch.Tensor
    cache: Any
    selected_crops: list[int]


@torch.inference_mode()
def prefill(model: DragonflyForCausalLM, inputs: dict[str, torch.Tensor]) -> Prefill:
    """Reads one sample (a batch of one, without padding)."""
    cache = DynamicCache(config=model.config.text_config)
    output = model(**inputs, cache=cache, use_cache=True, logits_to_keep=1)
    selected = [] if output.selected_crops is None else output.selected_crops[0].tolist()
    return Prefill(output.logits[0, -1].float(), output.cache, selected)


def decode(model: DragonflyForCausalLM, read: Prefill, sampling: Sampling) -> Iterator[int]:
    """Yields answer ids, without the stop token; the cache of ``read`` grows."""
    random = torch.Generator().manual_seed(sampling.seed)
    stop = set(model.config.stop_token_ids)
    logits = read.logits
    for step in range(sampling.max_new_tokens):
        token = _choose(logits, sampling.temperature, random)
        if token in stop:
            return
        yield token
        if step + 1 < sampling.max_new_tokens:
            logits = _next_logits(model, token, read.cache)


def stream_text(processor: DragonflyProcessor, tokens: Iterable[int]) -> Iterator[str]:
    """Yields the text of ``tokens`` piece by piece, whole characters only, without leading space."""
    ids: list[int] = []
    shown = ""
    text = ""
    for token in tokens:
        ids.append(token)
        text = processor.decode(ids, skip_special_tokens=True).lstrip()
        if not text.endswith(_INCOMPLETE) and len(text) > len(shown):
            yield text[len(shown) :]
            shown = text
    if len(text) > len(shown):
        yield text[len(shown) :]


def _choose(logits: torch.Tensor, temperature: float, random: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    probabilities = torch.softmax(logits.cpu() / temperature, dim=-1)
    return int(torch.multinomial(probabilities, 1, generator=random))


@torch.inference_mode()
def _next_logits(model: DragonflyForCausalLM, token: int, cache: Any) -> torch.Tensor:
    input_ids = torch.tensor([[token]], device=model.device)
    position_ids = torch.tensor([[cache.get_seq_length()]], device=model.device)
    output = model(input_ids=input_ids, position_ids=position_ids, cache=cache, use_cache=True)
    return output.logits[0, -1].float()
