"""A checkpoint opened to be trained: which numbers it is held and computed in, and where its pictures are encoded."""

import torch

from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.model import opening_errors, silence_transformers
from dragonfly_cli.engine.placement import choose_device, choose_dtype
from dragonfly_cli.errors import ModelError
from dragonfly_cli.finetuning.options import Precision, TuneOptions
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.loading import is_quantized
from dragonfly_med.quantized_loading import open_in_4_bit
from dragonfly_med.training.recipes import RECIPES


def open_for_training(checkpoint: Checkpoint, tuning: TuneOptions) -> tuple[DragonflyForCausalLM, DragonflyProcessor]:
    """The network with its weights as they are stored, in 4 bit for qlora, and its processor.

    Raises:
        ModelError: it is no complete checkpoint, or is stored in 4 bit only.
        DeviceError: there is no such device, or its memory is too small.
    """
    silence_transformers()
    with opening_errors(checkpoint, tuning.device):
        processor = DragonflyProcessor.from_pretrained(checkpoint.folder)
        if RECIPES[tuning.recipe].four_bit:
            folder = (checkpoint.in_4_bit or checkpoint).folder
            dtype = torch.bfloat16 if computes_in_bf16(tuning) else torch.float32
            return open_in_4_bit(folder, dtype, training_device(tuning), "sdpa"), processor
        if is_quantized(checkpoint.folder):
            raise ModelError(
                f"model {checkpoint.id} is stored in 4 bit, and --recipe {tuning.recipe} needs the full weights",
                "use --recipe qlora, or give the full checkpoint",
            )
        return DragonflyForCausalLM.from_pretrained(
            checkpoint.folder, dtype="auto", attn_implementation="sdpa"
        ), processor


def place_encoder(network: DragonflyForCausalLM, tuning: TuneOptions) -> None:
    """Moves the encoder to the device and number format in which it sees pictures when it answers."""
    device = training_device(tuning)
    network.image_encoder.to(device, choose_dtype(device)).eval()


def training_device(tuning: TuneOptions) -> torch.device:
    """The device of this process; of several processes, each has a GPU of its own."""
    from accelerate import PartialState

    device = choose_device(tuning.device)
    return PartialState(cpu=device.type == "cpu").device


def computes_in_bf16(tuning: TuneOptions) -> bool:
    if tuning.precision is not Precision.auto:
        return tuning.precision is Precision.bf16
    device = choose_device(tuning.device)
    return device.type == "cuda" and choose_dtype(device) is torch.bfloat16
