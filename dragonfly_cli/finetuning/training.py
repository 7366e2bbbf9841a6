"""From rows to a written checkpoint: the part of ``finetune`` that needs the network.

Several processes, started by ``accelerate launch`` or ``torchrun``, go through here side by side; the first one
writes and speaks.
"""

import math
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from time import perf_counter
from typing import Any

import torch
from accelerate import PartialState
from accelerate.utils import gather_object
from PIL import Image

from dragonfly_cli.datasets.data_file import Data
from dragonfly_cli.datasets.rows import Picture
from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.engine.placement import choose_device, device_errors
from dragonfly_cli.errors import UsageError
from dragonfly_cli.finetuning.curve import loss_curve
from dragonfly_cli.finetuning.folder import RunFolder
from dragonfly_cli.finetuning.network import computes_in_bf16, open_for_training, place_encoder, training_device
from dragonfly_cli.finetuning.options import TuneOptions
from dragonfly_cli.finetuning.pictures import (
    Blanked,
    PictureReader,
    PictureSamples,
    by_picture,
    conversation_of,
    encoded,
    unreadable_pictures,
)
from dragonfly_cli.finetuning.processes import is_first_process, say_once
from dragonfly_cli.finetuning.progress import Progress, diverged
from dragonfly_cli.finetuning.splits import Split
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.output.files import write_whole
from dragonfly_med import ControlTokenError, DragonflyForCausalLM, DragonflyProcessor, PromptTooLongError
from dragonfly_med.training import Settings, Teaching, Trained, TrainingRun
from dragonfly_med.training.recipes import RECIPES, Adapters
from dragonfly_med.training.saving import round_as_written, write_trained
from dragonfly_med.training.sequences import SequenceMaker

_ADAPTER, _CURVE = "adapter", "loss.png"
_MEMORY_HINT = "use --batch 1 with a larger --accumulate, --gradient-checkpointing, or --recipe qlora"
_BLANK_SIDE_PX = 64
_FEEDERS = 4  # processes that read pictures for a GPU, where they are read in every epoch


@dataclass(frozen=True)
class Prepared:
    """Samples that will not fail, and the same blank picture for all held-out ones."""

    split: Split
    train: PictureSamples
    held_out: PictureSamples
    blanked: Blanked
    warnings: Counter[str]  # of the readers, and of how many pictures each


def train_rows(
    folder: RunFolder,
    record: dict[str, Any],
    checkpoint: Checkpoint,
    data: Data,
    split: Split,
    tuning: TuneOptions,
    opening: OpenOptions,
) -> None:
    """Trains, evaluates and writes; ``record`` is completed on the way."""
    started = perf_counter()
    with folder.kept_if_learnt(), device_errors(str(training_device(tuning)), _MEMORY_HINT):
        network, processor = open_for_training(checkpoint, tuning)
        cache = None if RECIPES[tuning.recipe].encoder_learns else folder.features
        prepared = _prepare(network, processor, PictureReader(processor, opening, cache), data, split, tuning)
        if unused := data.unused_line():
            say_once(f"note: {unused}")
        for line in _oddities(data, prepared, tuning):
            say_once(f"warning: {line}")
        say_once(f"note: model {checkpoint.id} learns from {prepared.split.summary()}")
        run = TrainingRun(
            network, processor, prepared.train, prepared.held_out, _settings(tuning), folder.checkpoints, [Progress()]
        )
        metrics, trained = _trained_and_scored(run, prepared, checkpoint.folder)
        _refuse_diverged(run, prepared, folder.checkpoints)
        if prepared.split.held_out:
            say_once(f"note: {_what_it_learnt(metrics)}")
    if is_first_process():
        seconds = round(trained.earlier_seconds + perf_counter() - started, 1)
        done = {"metrics": metrics, "history": trained.history, "seconds": seconds}
        record |= _what_was_used(data, prepared, run) | done
        _write(folder, record, checkpoint, trained, tuning)
    PartialState().wait_for_everyone()
    PartialState().destroy_process_group()  # else its threads now and then abort a process that is ending


def _oddities(data: Data, prepared: Prepared, tuning: TuneOptions) -> Iterator[str]:
    """What a user should know about the rows before they are learnt from."""
    yield from (f"left out {line}" for line in data.bad_lines())
    for sentence, count in sorted(prepared.warnings.items()):
        yield f"{count} picture{'s' * (count > 1)}: {sentence}"
    if not prepared.split.held_out and tuning.hold_out:
        yield "no row is held out, so nothing will tell how well it answers"


def _trained_and_scored(run: TrainingRun, prepared: Prepared, base: Path) -> tuple[dict[str, Any], Trained]:
    before = run.score(prepared.held_out).summary()
    trained = run.train()
    round_as_written(base, trained.network)
    metrics = {
        "before": before,
        "after": run.score(prepared.held_out).summary(),
        "after_with_blank_pictures": run.score(prepared.blanked).summary(),
    }
    return metrics, trained


def _refuse_diverged(run: TrainingRun, prepared: Prepared, checkpoints: Path) -> None:
    """Nobody has seen yet what the last step made of the network, where no row is held out."""
    if not math.isfinite(run.score([prepared.train[0]]).loss):
        raise diverged(run.trainer.state.global_step, checkpoints)


def _what_it_learnt(metrics: dict[str, Any]) -> str:
    """The last figure tells how much of it the questions alone give away."""
    before, after, blank = (metrics[when]["loss"] for when in ("before", "after", "after_with_blank_pictures"))
    return f"held-out loss: {before:.4g} before, {after:.4g} after, {blank:.4g} after with blank pictures"


def _what_was_used(data: Data, prepared: Prepared, run: TrainingRun) -> dict[str, Any]:
    """For the record: which rows, and the settings with the recipe's own values in place."""
    state, split = PartialState(), prepared.split
    return {
        "rows": {"train": len(split.train), "held_out": len(split.held_out), "split": split.by},
        "bad_rows": data.bad_lines(),
        "picture_warnings": dict(sorted(prepared.warnings.items())),
        "training": asdict(run.settings) | {"device": str(state.device), "processes": state.num_processes},
    }


def _prepare(
    network: DragonflyForCausalLM,
    processor: DragonflyProcessor,
    reader: PictureReader,
    data: Data,
    split: Split,
    tuning: TuneOptions,
) -> Prepared:
    """Looks at every row and every picture; raises InputError when too many cannot be used."""
    maker = _sequence_maker(processor, tuning)
    unfit: dict[int, str] = {}
    for row in data.rows:
        try:
            maker.packed([conversation_of(row)])
        except (ControlTokenError, PromptTooLongError) as error:
            unfit[row.number] = str(error)
    data.leave_out(unfit)
    data.refuse_too_many_bad(tuning.max_errors)
    if not RECIPES[tuning.recipe].encoder_learns:
        place_encoder(network, tuning)
    pictures = by_picture(data.rows)
    unreadable = _unreadable(reader, list(pictures), network)
    data.leave_out({row.number: why for picture, why in unreadable for row in pictures[picture]})
    data.refuse_too_many_bad(tuning.max_errors)
    split = split.only(data.path, {row.number for row in data.rows}, data.named_bad())
    train, held_out = (PictureSamples(reader, maker, rows) for rows in (split.train, split.held_out))
    warnings: Counter[str] = sum(gather_object([reader.warnings]), Counter())
    return Prepared(split, train, held_out, Blanked(held_out, _blank(network, processor, tuning)), warnings)


def _sequence_maker(processor: DragonflyProcessor, tuning: TuneOptions) -> SequenceMaker:
    """Raises UsageError where --max-length leaves no room for text."""
    maker = SequenceMaker(processor, _teaching(tuning))
    if tuning.max_length is not None and maker.text_room <= 0:
        raise UsageError(
            f"--max-length {tuning.max_length}: a picture alone takes {tuning.max_length - maker.text_room} tokens",
            "give more, or leave it out",
        )
    return maker


def _unreadable(
    reader: PictureReader, pictures: list[Picture], network: DragonflyForCausalLM
) -> Iterable[tuple[Picture, str]]:
    """Every process looks at its share, and learns of the others' findings."""
    state = PartialState()
    mine = pictures[state.process_index :: state.num_processes]
    found = gather_object(list(unreadable_pictures(reader, mine, network)))
    state.wait_for_everyone()
    return found


def _blank(
    network: DragonflyForCausalLM, processor: DragonflyProcessor, tuning: TuneOptions
) -> dict[str, torch.Tensor]:
    pixels = processor.pixels(Image.new("RGB", (_BLANK_SIDE_PX, _BLANK_SIDE_PX), "white"))
    return {"pixels": pixels} if RECIPES[tuning.recipe].encoder_learns else {"features": encoded(network, pixels)}


def _teaching(tuning: TuneOptions) -> Teaching:
    return Teaching(loss=tuning.loss.value, max_length=tuning.max_length)


def _settings(tuning: TuneOptions) -> Settings:
    device = choose_device(tuning.device)
    return Settings(
        recipe=tuning.recipe.value,
        teaching=_teaching(tuning),
        epochs=tuning.epochs,
        steps=tuning.steps,
        learning_rate=tuning.lr,
        batch=tuning.batch,
        accumulate=tuning.accumulate,
        adapters=Adapters(rank=tuning.rank, alpha=2 * tuning.rank),
        seed=tuning.seed,
        mixed_precision=computes_in_bf16(tuning),
        gradient_checkpointing=tuning.gradient_checkpointing,
        save_every=tuning.save_every,
        use_cpu=device.type == "cpu",
        workers=_FEEDERS if device.type == "cuda" and RECIPES[tuning.recipe].encoder_learns else 0,
    )


def _write(
    folder: RunFolder, record: dict[str, Any], checkpoint: Checkpoint, trained: Trained, tuning: TuneOptions
) -> None:
    """The checkpoint, its adapters beside it, the record and the curve."""
    four_bit = RECIPES[tuning.recipe].four_bit
    base = (checkpoint.in_4_bit or checkpoint) if four_bit else checkpoint
    folder.result.mkdir(exist_ok=True)
    write_trained(base.folder, trained.network, folder.result, four_bit)
    if trained.adapted is not None:
        _save_adapter(trained.adapted, folder.result / _ADAPTER, checkpoint.id)
    write_whole(folder.result / _CURVE, lambda part: loss_curve(trained.history).save(part, format="PNG"))
    folder.publish()
    folder.write({**record, "status": "finished"})
    folder.clear()


def _save_adapter(adapted: Any, place: Path, base: str) -> None:
    """As peft does it, but for where the base lies on this machine, and a card that nobody has filled in."""
    adapted.peft_config["default"].base_model_name_or_path = base
    adapted.save_pretrained(str(place), save_embedding_layers=False)  # else the base is looked for on the hub
    (place / "README.md").unlink()
