"""Answering token by token: what has been read is kept, and only what is new is computed; one sample at a time.

A ``Reading`` gives the logits that follow a text about one image; typed questions need nothing more. ``decode`` yields
answer ids until the model stops; several answers at a time are written by ``joint``. Printing is the caller's business.
Equal to ``DragonflyForCausalLM.generate``, without its bookkeeping per token.
"""

from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from transformers import DynamicCache

from dragonfly_med.errors import NoNumbersError
from dragonfly_med.memory import in_parts
from dragonfly_med.modeling import DragonflyForCausalLM
from dragonfly_med.processing import DragonflyProcessor

# A byte-level token may end in the middle of a character, which decodes to this until the rest has come.
_INCOMPLETE = "\ufffd"

# Characters at the end that later tokens may still change: where a tokenizer cleans up, " n't" becomes "n't".
_UNSETTLED = 4


@dataclass(frozen=True)
class Sampling:
    """How answers are drawn: ``temperature`` 0 is greedy, and then ``seed`` changes nothing."""

    max_new_tokens: int = 256
    temperature: float = 0.0
    seed: int = 0


class Grammar(Protocol):
    """What an answer may look like. It begins anew with every answer."""

    def restrict(self, logits: torch.Tensor) -> torch.Tensor:
        """The logits [vocabulary], minus infinity at every token that may not come next."""

    def accept(self, token: int) -> None:
        """Told of every token that was chosen."""


class Sampler:
    """Draws the tokens of one answer, from the logits before each."""

    def __init__(self, stop: Collection[int], sampling: Sampling, grammar: Grammar | None = None) -> None:
        """The answer ends at a token of ``stop``."""
        self._stop = stop
        self._temperature = sampling.temperature
        self._random = torch.Generator().manual_seed(sampling.seed)
        self._grammar = grammar

    def next(self, logits: torch.Tensor) -> int | None:
        """The token that follows, of logits [vocabulary]; None where the answer ends."""
        allowed = self._grammar.restrict(logits) if self._grammar else logits
        token = _choose(allowed, self._temperature, self._random)
        if token in self._stop:
            return None
        if self._grammar:
            self._grammar.accept(token)
        return token


@dataclass(frozen=True)
class Prefilled:
    """A prompt as the network has read it, to be answered beside others.

    ``layers`` are keys and values of every layer, each [1, heads, length, width]; what is read later leaves them as
    they are. ``logits`` [vocabulary] follow the prompt; they are float32 and on the CPU.
    """

    layers: list[tuple[torch.Tensor, torch.Tensor]]
    logits: torch.Tensor

    @property
    def length(self) -> int:
        return self.layers[0][0].shape[-2]


class Reading:
    """One image as the network has read it, and the text after it: a cache that follows what is asked.

    There may be no image, and then what is read is text alone.

    The image comes first in the sequence, so it is encoded once, with the first text or before it beside other images
    (``encode_images``), and prefilled once, in one pass with the first text. A later text costs the tokens from where
    it departs from what was read last: another question its own, the next turn of a conversation what is new in it.
    Logits are those of reading everything at once, up to rounding (1e-5 in float32).
    """

    def __init__(self, model: DragonflyForCausalLM, image_ids: list[int], pixels: torch.Tensor | None) -> None:
        """``image_ids`` are the placeholders of one image, ``pixels`` its crops [crops, 3, side, side].

        Without an image there are no ids, and ``pixels`` is None.
        """
        self.model = model
        self.selected_crops: list[int] = []  # which high crops v1 zoomed in on, once something was read
        self._image_ids = image_ids
        self._pixels = pixels
        self._encoded: list[torch.Tensor] = []  # the image, [1, embeddings, width], from its encoding to its prefill
        self._ids: list[int] = []  # what the cache holds
        self._next: torch.Tensor | None = None  # logits after the last of them
        self._cache = DynamicCache(config=model.config.text_config)

    def logits(self, text_ids: Sequence[int], last: int = 1) -> torch.Tensor:
        """Float32 [last, vocabulary]: what follows each of the ``last`` tokens of the text; BOS is part of the text."""
        ids = [*self._image_ids, *text_ids]
        if last == 1 and ids == self._ids and self._next is not None:
            return self._next[None]
        kept = min(_common_length(self._ids, ids), len(ids) - last)
        return self._read(kept, ids[kept:], last)

    def logits_after(self, token: int) -> torch.Tensor:
        """Float32 [vocabulary]: what follows when ``token`` comes after all that was read."""
        return self._read(len(self._ids), [token], 1)[-1]

    def prefilled(self, text_ids: Sequence[int]) -> Prefilled:
        """Reads a text; nothing is copied, as a cache makes new tensors where it grows."""
        logits = self.logits(text_ids)[-1].cpu()
        return Prefilled([(layer.keys, layer.values) for layer in self._cache.layers], logits)

    def forget(self) -> None:
        """Gives back the memory of what was read; a later text is read with the image anew."""
        self._cache = DynamicCache(config=self.model.config.text_config)
        self._ids, self._next = [], None

    @torch.inference_mode()
    def _read(self, kept: int, new_ids: list[int], last: int) -> torch.Tensor:
        embeds = self._embed(new_ids, with_image=kept == 0)
        parts = in_parts(len(new_ids), lambda start, end: self._extend(kept + start, embeds[:, start:end], last))
        self._ids += new_ids
        logits = torch.cat(parts)[-last:].float()  # [last, vocabulary]
        check_numbers(logits, self.model.dtype)
        self._next = logits[-1]
        return logits

    def _embed(self, ids: list[int], *, with_image: bool) -> torch.Tensor:
        """[1, ids, width]"""
        input_ids = torch.tensor([ids], device=self.model.device)
        words = self.model.get_input_embeddings()(input_ids)
        if self._pixels is None or not with_image:
            return words
        if not self._encoded:
            encode_images([self])
        return self.model.place_images(input_ids, words, self._encoded.pop())

    def _extend(self, at: int, embeds: torch.Tensor, last: int) -> torch.Tensor:
        """Reads on from the ``at``-th id; logits [at most last, vocabulary]."""
        self._forget_beyond(at)
        count = embeds.shape[1]
        output = self.model(
            inputs_embeds=embeds,
            position_ids=torch.arange(at, at + count, device=self.model.device)[None],
            cache=self._cache,
            use_cache=True,
            logits_to_keep=min(last, count),
        )
        return output.logits[0]

    def _forget_beyond(self, length: int) -> None:
        """A pass that was interrupted leaves the first layers longer than the others, or keys longer than values."""
        self._ids, self._next = self._ids[:length], None
        if not length:
            self._cache = DynamicCache(config=self.model.config.text_config)
            return
        for layer in self._cache.layers:
            layer.keys, layer.values = layer.keys[..., :length, :], layer.values[..., :length, :]


@torch.inference_mode()
def encode_images(readings: Sequence[Reading]) -> None:
    """Encodes the images of readings by one network, each of which has one, before anything is read of them."""
    model = readings[0].model
    crops = torch.stack([pixels for reading in readings if (pixels := reading._pixels) is not None])
    images, selected = model.embed_images(crops.to(model.device))
    for number, reading in enumerate(readings):
        reading._encoded = [images[number : number + 1]]
        reading.selected_crops = [] if selected is None else selected[number].tolist()


def decode(
    reading: Reading, text_ids: Sequence[int], sampling: Sampling, grammar: Grammar | None = None
) -> Iterator[int]:
    """Yields the ids of the answer to a prompt, without the stop token."""
    sampler = Sampler(reading.model.config.stop_token_ids, sampling, grammar)
    logits = reading.logits(text_ids)[-1]
    for step in range(sampling.max_new_tokens):
        token = sampler.next(logits)
        if token is None:
            return
        yield token
        if step + 1 < sampling.max_new_tokens:
            logits = reading.logits_after(token)


def stream_text(processor: DragonflyProcessor, tokens: Iterable[int], verbatim: bool = False) -> Iterator[str]:
    """Yields the text of ``tokens`` piece by piece, whole characters only, without leading space.

    ``verbatim`` keeps spaces before punctuation, which the published tokenizers take away.
    """
    ids: list[int] = []
    text = ""
    shown = 0
    for token in tokens:
        ids.append(token)
        text = whole_text(processor, ids, verbatim)
        settled = len(text) - _UNSETTLED
        if not text.endswith(_INCOMPLETE) and settled > shown:
            yield text[shown:settled]
            shown = settled
    if len(text) > shown:
        yield text[shown:]


def whole_text(processor: DragonflyProcessor, tokens: Sequence[int], verbatim: bool) -> str:
    """What ``stream_text`` yields in pieces."""
    clean_up = False if verbatim else None
    return processor.decode(tokens, skip_special_tokens=True, clean_up_tokenization_spaces=clean_up).lstrip()


def check_numbers(logits: torch.Tensor, dtype: torch.dtype) -> None:
    """Raises NoNumbersError for logits from which nothing follows; ``dtype`` is what they were computed in."""
    if not logits.isfinite().all():
        raise NoNumbersError(f"what it computes in {dtype} is no number".replace("torch.", ""))


def _common_length(one: Sequence[int], other: Sequence[int]) -> int:
    """How many ids both begin with."""
    pairs = enumerate(zip(one, other, strict=False))
    return next((place for place, (a, b) in pairs if a != b), min(len(one), len(other)))


def _choose(logits: torch.Tensor, temperature: float, random: torch.Generator) -> int:
    if temperature == 0:
        return int(logits.argmax())
    below_most = logits.cpu().double() - logits.max().item()  # so that no temperature, however low, gives infinity
    probabilities = torch.softmax(below_most / temperature, dim=-1).float()
    return int(torch.multinomial(probabilities, 1, generator=random))
