"""A loaded model: the network on its device, its processor, and its identity."""

import logging
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import transformers

from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.choices import Spellings, spellings_of, yes_no_token_ids
from dragonfly_cli.engine.placement import Placement, device_errors, place
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.engine.schema import SchemaGrammar, grammar_tokenizer
from dragonfly_cli.errors import ModelError
from dragonfly_cli.option_values import Attention, Quant
from dragonfly_cli.store.manifest import MAY_NOT_READ
from dragonfly_med import CheckpointError, DragonflyForCausalLM, DragonflyProcessor, NoNumbersError
from dragonfly_med.generation import Reading
from dragonfly_med.quantized_loading import open_in_4_bit

if TYPE_CHECKING:
    from llguidance import LLTokenizer

_NEEDED = "the folder needs config.json, tokenizer.json and all weights of one Dragonfly checkpoint"


@dataclass(frozen=True)
class ModelIdentity:
    """What a record says of the model that answered."""

    id: str
    architecture: str
    quantization: str
    device: str
    dtype: str
    sha256: str | None


@dataclass(frozen=True)
class Model:
    """A network that can answer, on its device."""

    network: DragonflyForCausalLM
    processor: DragonflyProcessor
    identity: ModelIdentity
    option_ids: dict[str, list[int]]  # token ids that mean yes, and no

    @property
    def canvas_wh(self) -> tuple[int, int]:
        return self.processor.canvas_wh

    @property
    def device(self) -> torch.device:
        return self.network.device

    def reading(self, pixels: torch.Tensor) -> Reading:
        """One image to be asked about, from its crops [crops, 3, side, side]; nothing is computed yet."""
        return Reading(self.network, self.processor.image_block(), pixels)

    def reading_of_text(self) -> Reading:
        """For text without an image."""
        return Reading(self.network, [], None)

    def spellings(self, question: Question) -> Spellings:
        return spellings_of(self.processor, question, self.option_ids)

    def grammar(self, schema: str) -> SchemaGrammar:
        return SchemaGrammar(self._grammar_tokenizer, schema)

    @cached_property
    def _grammar_tokenizer(self) -> "LLTokenizer":
        return grammar_tokenizer(self.network, self.processor)


def load_model(
    checkpoint: Checkpoint, device: str = "auto", quant: Quant = Quant.auto, attn: Attention = Attention.auto
) -> Model:
    """Reads a checkpoint onto ``auto``, ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ModelError: the folder is not a complete Dragonfly checkpoint.
        DeviceError: there is no such device, or not enough memory on it.
        UsageError: ``quant`` or ``attn`` asks for what cannot be had.
    """
    silence_transformers()
    with opening_errors(checkpoint, device):
        processor = DragonflyProcessor.from_pretrained(checkpoint.folder)
        placement = place(checkpoint, device, quant, attn)
        if placement.quantized and checkpoint.in_4_bit:
            checkpoint = checkpoint.in_4_bit
        network = _open(checkpoint.folder, placement)
    identity = ModelIdentity(
        id=checkpoint.id,
        architecture=network.config.architecture,
        quantization="nf4" if placement.quantized else "none",
        device=str(placement.device),
        dtype=str(_computed_in(network, placement)).removeprefix("torch."),
        sha256=checkpoint.sha256(),
    )
    return Model(network, processor, identity, yes_no_token_ids(processor.tokenizer))


@contextmanager
def opening_errors(checkpoint: Checkpoint, device: str) -> Iterator[None]:
    """Turns what goes wrong with a checkpoint's files into ModelError, and a full memory into DeviceError."""
    try:
        with device_errors(device):
            yield
    except CheckpointError as error:
        why = str(error).removeprefix(f"{Path(checkpoint.id)}: ")  # a folder is named once
        raise ModelError(f"model {checkpoint.id}: {why}", MAY_NOT_READ if _is_denied(error) else _NEEDED) from error


def _is_denied(error: BaseException | None) -> bool:
    """Whether it came of a file that may not be read."""
    return error is not None and (isinstance(error, PermissionError) or _is_denied(error.__cause__))


@contextmanager
def computing_errors(model: Model) -> Iterator[None]:
    """Turns a full memory into DeviceError, and numbers that are none into ModelError."""
    try:
        with device_errors(str(model.device)):
            yield
    except NoNumbersError as error:
        raise ModelError(
            f"model {model.identity.id}: {error}",
            "compare its weights with those published; where they are whole, use --device cpu, which has float32",
        ) from error


def _open(folder: Path, placement: Placement) -> DragonflyForCausalLM:
    if placement.quantized:
        return open_in_4_bit(folder, placement.dtype, placement.device, placement.attention)
    network = DragonflyForCausalLM.from_pretrained(
        folder, dtype=placement.dtype, attn_implementation=placement.attention
    )
    return network.eval().to(placement.device)


def _computed_in(network: DragonflyForCausalLM, placement: Placement) -> torch.dtype:
    """The least exact numbers of all: on some CPUs bitsandbytes rounds what it multiplies with 4-bit weights."""
    rounds = placement.device.type == "cpu" and any(
        getattr(module, "support_avx512bf16_for_cpu", False) for module in network.modules()
    )
    return torch.bfloat16 if rounds else placement.dtype


def silence_transformers() -> None:
    """What matters of its messages is raised as an error; the rest would mix with the user's."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
    warnings.filterwarnings("ignore", module=r"torch\._weights_only_unpickler")
    warnings.filterwarnings("ignore", category=FutureWarning, module=r"transformers\.")
