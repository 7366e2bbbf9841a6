"""The options of ``finetune``; what is ``None`` is the recipe's own. Nothing heavy is imported."""

from dataclasses import dataclass
from enum import StrEnum
from typing import Annotated

import typer

from dragonfly_cli.errors import UsageError
from dragonfly_cli.options import ModelOption

_HIGHEST_SEED = 2**32 - 1  # of NumPy's generator


class RecipeName(StrEnum):
    """Which part of the network learns: see ``dragonfly_med.training.recipes``."""

    stage1 = "stage1"
    language = "language"
    stage2 = "stage2"
    lora = "lora"
    qlora = "qlora"

    @property
    def has_adapters(self) -> bool:
        return self in (RecipeName.lora, RecipeName.qlora)


class LossName(StrEnum):
    """What is learnt of a row: its answers, or as in the reference everything."""

    answer_only = "answer-only"
    reference = "reference"


class Precision(StrEnum):
    """Of computing while training; ``auto`` is bf16 on a GPU that has it, else fp32."""

    auto = "auto"
    bf16 = "bf16"
    fp32 = "fp32"


class Device(StrEnum):
    """Where to train; a GPU is chosen by CUDA_VISIBLE_DEVICES, several by ``accelerate launch``."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


@dataclass(frozen=True)
class TuneOptions:
    """What learns, and how."""

    recipe: Annotated[
        RecipeName,
        typer.Option(
            "--recipe",
            help="What learns. lora, qlora: adapters, over weights in 16 or 4 bits; stage1: the projector; "
            "language: the projector and the language model; stage2: everything.",
        ),
    ] = RecipeName.lora
    loss: Annotated[
        LossName,
        typer.Option("--loss", help="What is learnt of a row: its answers, or as in the reference everything."),
    ] = LossName.answer_only
    model: ModelOption = "auto"
    epochs: Annotated[float | None, typer.Option("--epochs", help="How often every picture is seen.")] = None
    steps: Annotated[
        int | None, typer.Option("--steps", min=1, help="How many steps to train, instead of --epochs.")
    ] = None
    lr: Annotated[float | None, typer.Option("--lr", help="The highest learning rate.")] = None
    batch: Annotated[int | None, typer.Option("--batch", min=1, help="Pictures at a time, each with all its rows.")] = (
        None
    )
    accumulate: Annotated[int | None, typer.Option("--accumulate", min=1, help="Batches in a step.")] = None
    max_length: Annotated[
        int | None, typer.Option("--max-length", min=1, help="Most tokens of a picture and its rows together.")
    ] = None
    rank: Annotated[int, typer.Option("--rank", min=1, help="Rank of the adapters.")] = 16
    hold_out: Annotated[
        float, typer.Option("--hold-out", help="Share of the rows to test on, where the data has no column split.")
    ] = 0.1
    max_errors: Annotated[
        int, typer.Option("--max-errors", min=0, help="Leave out up to N rows that cannot be used.")
    ] = 10
    seed: Annotated[
        int, typer.Option("--seed", min=0, max=_HIGHEST_SEED, help="Seed of everything drawn at random.")
    ] = 0
    device: Annotated[Device, typer.Option("--device", help="Where to train.")] = Device.auto
    precision: Annotated[
        Precision, typer.Option("--precision", help="What to compute in. auto: bf16 on a GPU, else fp32.")
    ] = Precision.auto
    gradient_checkpointing: Annotated[
        bool, typer.Option("--gradient-checkpointing", help="Take less memory and more time.")
    ] = False
    save_every: Annotated[
        int | None,
        typer.Option("--save-every", min=1, help="Steps between checkpoints: a fifth of them, at most 200."),
    ] = None

    def check(self) -> None:
        """Raises UsageError for values that contradict each other, or that nothing can come of."""
        if self.epochs is not None and self.steps is not None:
            raise UsageError("--epochs and --steps are both given", "give one of them")
        for name, value in (("--epochs", self.epochs), ("--lr", self.lr)):
            if value is not None and not 0 < value < float("inf"):
                raise UsageError(f"{name} must be above 0, not {value}", f"leave {name} out for the recipe's own")
        if not 0 <= self.hold_out <= 0.5:
            raise UsageError(f"--hold-out must be from 0 to 0.5, not {self.hold_out}", "0.1 keeps a tenth of the rows")
