"""Several answers written in lockstep, a token of each in one pass of the network.

A pass reads every weight once, whatever the number of rows, and reading them is what takes a GPU's time. Prompts are
read one by one, as everywhere (``generation.Reading``); copies of what was read are left-padded to one batch. Every
answer has its own random numbers, grammar and end, and is the one that ``generation.decode`` gives, up to rounding: a
product over several rows may differ from that over one in its last digits, which decides where two tokens are as good
as equally likely.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.functional import pad
from transformers import Cache
from transformers.cache_utils import DynamicLayer

from dragonfly_med.generation import Grammar, Prefilled, Sampler, Sampling, check_numbers
from dragonfly_med.memory import in_parts
from dragonfly_med.modeling import DragonflyForCausalLM

_ROOM = 64  # tokens that are written before a cache is copied to a larger one


@dataclass(frozen=True)
class Start:
    """A prompt that was read, and what makes the grammar of an answer to it, anew whenever the answer is begun."""

    prompt: Prefilled
    new_grammar: Callable[[], Grammar] | None = None


def decode_together(network: DragonflyForCausalLM, starts: Sequence[Start], sampling: Sampling) -> list[list[int]]:
    """The ids of every answer, without the stop token.

    Where memory runs out, half of them are written at a time, down to one. Raises what the network does when not even
    one has room, and NoNumbersError.
    """
    parts = in_parts(len(starts), lambda start, end: _decode(network, starts[start:end], sampling))
    return [ids for part in parts for ids in part]


class _Answer:
    """One that is being written."""

    def __init__(self, sampler: Sampler) -> None:
        self.ids: list[int] = []
        self._sampler = sampler

    def goes_on(self, logits: torch.Tensor) -> bool:
        """Takes the next token, if there is one."""
        token = self._sampler.next(logits)
        if token is not None:
            self.ids.append(token)
        return token is not None


@torch.inference_mode()
def _decode(network: DragonflyForCausalLM, starts: Sequence[Start], sampling: Sampling) -> list[list[int]]:
    grammars = [start.new_grammar() if start.new_grammar else None for start in starts]
    stop = network.config.stop_token_ids
    answers = writing = [_Answer(Sampler(stop, sampling, grammar)) for grammar in grammars]
    rows = _Rows(network, [start.prompt for start in starts])
    logits: Sequence[torch.Tensor] | torch.Tensor = [start.prompt.logits for start in starts]
    for step in range(sampling.max_new_tokens):
        going = [row for row, answer in enumerate(writing) if answer.goes_on(logits[row])]
        if not going or step + 1 == sampling.max_new_tokens:
            break
        writing = [writing[row] for row in going]
        rows.keep(going)
        logits = rows.logits_after([answer.ids[-1] for answer in writing])
    return [answer.ids for answer in answers]


class _Rows:
    """What the network has read for each of several answers, as one cache, padded on the left."""

    def __init__(self, network: DragonflyForCausalLM, prompts: Sequence[Prefilled]) -> None:
        self._network = network
        self._lengths = [prompt.length for prompt in prompts]
        longest = max(self._lengths)

        def joined(layer: int, part: int) -> torch.Tensor:
            """Keys (0) or values (1) of one layer: [rows, heads, longest + room, width]"""
            each = [prompt.layers[layer][part] for prompt in prompts]
            return torch.cat([pad(one, (0, 0, longest - one.shape[-2], _ROOM)) for one in each])

        layers = range(len(prompts[0].layers))
        self._cache = Cache(layers=[_RoomyLayer(joined(layer, 0), joined(layer, 1), longest) for layer in layers])

    def keep(self, rows: list[int]) -> None:
        """Forgets the others."""
        if len(rows) < len(self._lengths):
            self._cache.batch_select_indices(torch.tensor(rows, device=self._network.device))
            self._lengths = [self._lengths[row] for row in rows]

    def logits_after(self, tokens: list[int]) -> torch.Tensor:
        """Float32 [rows, vocabulary], on the CPU: what follows when one token more is read in every row."""
        device, width = self._network.device, self._cache.get_seq_length()
        lengths = torch.tensor(self._lengths, device=device)[:, None]
        is_read = torch.arange(width + 1, device=device) >= width - lengths  # [rows, width + 1]
        output = self._network(
            input_ids=torch.tensor(tokens, device=device)[:, None],
            attention_mask=None if min(self._lengths) == width else is_read.long(),  # kernels without one are faster
            position_ids=lengths,
            cache=self._cache,
            use_cache=True,
            logits_to_keep=1,
        )
        self._lengths = [length + 1 for length in self._lengths]
        logits = output.logits[:, -1].float().cpu()
        check_numbers(logits, self._network.dtype)
        return logits


class _RoomyLayer(DynamicLayer):
    """Keys and values with room behind them, where a token is written; a plain layer copies all of them for each."""

    def __init__(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        """[rows, heads, length + room, width] each"""
        super().__init__()
        self.lazy_initialization(keys, values)
        self._take(keys, values, length)

    def update(self, key_states: torch.Tensor, value_states: torch.Tensor, *_: Any, **__: Any) -> Any:
        start = self.get_seq_length()
        end = start + key_states.shape[-2]
        if end > self._all_keys.shape[-2]:
            self._take(pad(self.keys, (0, 0, 0, _ROOM)), pad(self.values, (0, 0, 0, _ROOM)), start)
        self._all_keys[:, :, start:end] = key_states
        self._all_values[:, :, start:end] = value_states
        self._take(self._all_keys, self._all_values, end)
        return self.keys, self.values

    def batch_select_indices(self, indices: torch.Tensor) -> None:
        self._take(self._all_keys[indices], self._all_values[indices], self.get_seq_length())

    def _take(self, keys: torch.Tensor, values: torch.Tensor, length: int) -> None:
        self._all_keys, self._all_values = keys, values
        self.keys, self.values = keys[:, :, :length], values[:, :, :length]
