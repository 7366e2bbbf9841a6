"""A loaded model: the network on its device, its processor, and who it is."""

import logging
from dataclasses import dataclass

import torch
import transformers

from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.questions import yes_no_token_ids
from dragonfly_cli.errors import DeviceError, ModelError
from dragonfly_med import CheckpointError, DragonflyForCausalLM, DragonflyProcessor


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
    def device(self) -> torch.device:
        return self.network.device


def load_model(checkpoint: Checkpoint, device: str = "auto") -> Model:
    """Reads a checkpoint onto ``auto``, ``cpu``, ``cuda`` or ``cuda:N``: float32 on a CPU, bfloat16 on a GPU.

    Raises:
        ModelError: the folder is not a complete Dragonfly checkpoint.
        DeviceError: there is no such device, or not enough memory on it.
    """
    place = choose_device(device)
    dtype = torch.float32 if place.type == "cpu" else torch.bfloat16
    _silence_transformers()
    try:
        processor = DragonflyProcessor.from_pretrained(checkpoint.folder)
        network = DragonflyForCausalLM.from_pretrained(checkpoint.folder, dtype=dtype)
        network = network.eval().to(place)
    except CheckpointError as error:
        raise ModelError(
            f"model {checkpoint.id}: {error}",
            "the folder needs config.json, tokenizer.json and all weights of one Dragonfly checkpoint",
        ) from error
    except torch.OutOfMemoryError as error:
        raise out_of_memory(str(place)) from error
    identity = ModelIdentity(
        id=checkpoint.id,
        architecture=network.config.architecture,
        quantization="none",
        device=str(place),
        dtype=str(dtype).removeprefix("torch."),
        sha256=checkpoint.sha256(),
    )
    return Model(network, processor, identity, yes_no_token_ids(processor.tokenizer))


def choose_device(device: str) -> torch.device:
    """The device that ``--device`` names; a CPU is never taken where a GPU was asked for."""
    if device == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    kind, _, index = device.partition(":")
    if kind not in ("cpu", "cuda") or (index and not index.isdigit()):
        raise DeviceError(f"--device {device}: there is no such device", "give auto, cpu, cuda or cuda:N")
    if kind == "cuda" and int(index or 0) >= torch.cuda.device_count():
        raise DeviceError(
            f"--device {device}: no such GPU is usable (PyTorch sees {torch.cuda.device_count()})",
            "use --device cpu, or install a CUDA build of PyTorch and check nvidia-smi",
        )
    return torch.device(device)


def out_of_memory(device: str) -> DeviceError:
    return DeviceError(f"out of memory on {device}", "close other programs that use it, or use --device cpu")


def _silence_transformers() -> None:
    """What matters of its messages is raised as an error; the rest would mix with the user's."""
    transformers.logging.set_verbosity_error()
    transformers.logging.disable_progress_bar()
    logging.getLogger("transformers").setLevel(logging.ERROR)
