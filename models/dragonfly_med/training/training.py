"""A training run: transformers' Trainer over packed sequences, continued from its last checkpoint.

Nothing here knows files of data or the layout of a finished model; see ``saving`` for that. Several processes share
the work when they were started by ``accelerate launch`` or ``torchrun``.
"""

import json
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from time import perf_counter
from typing import Any
from zipfile import is_zipfile

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save_file
from torch import nn
from torch.utils.data import DataLoader, Dataset
from transformers import PrinterCallback, Trainer, TrainerCallback, TrainerState, TrainingArguments, set_seed

from dragonfly_med.modeling import DragonflyForCausalLM
from dragonfly_med.processing import DragonflyProcessor
from dragonfly_med.training.evaluation import Scores, score, yes_no_of
from dragonfly_med.training.learner import Learner
from dragonfly_med.training.recipes import RECIPES, Adapters, Recipe, add_adapters, choose_parameters
from dragonfly_med.training.samples import Sample
from dragonfly_med.training.sequences import SequenceMaker, Teaching

_KEPT_CHECKPOINTS = 2
_SAVED, _SAVED_WITHIN = 5, 200  # how often a run is saved, and after how many steps at most
_STATE_FILE, _WEIGHTS_FILE = "trainer_state.json", "model.safetensors"


@dataclass(frozen=True)
class Settings:
    """How to train; what is ``None`` is the recipe's. The constants are the reference's for both of its stages.

    A step reads ``batch`` x ``accumulate`` samples on every process. ``steps`` stands above ``epochs``.
    """

    recipe: str = "lora"
    teaching: Teaching = field(default_factory=Teaching)
    epochs: float | None = None
    steps: int | None = None
    learning_rate: float | None = None
    batch: int | None = None
    accumulate: int | None = None
    adapters: Adapters = field(default_factory=Adapters)
    seed: int = 0
    warmup: float = 0.01
    weight_decay: float = 0.1
    clip: float = 1.0
    mixed_precision: bool = False
    gradient_checkpointing: bool = False
    save_every: int | None = None  # steps; None saves five times, and every 200 steps in a long run
    evaluate_every: int | None = None  # steps; None evaluates five times
    use_cpu: bool = False
    workers: int = 0  # processes that read samples

    def complete(self) -> "Settings":
        """With the recipe's own values where none were given."""
        recipe = RECIPES[self.recipe]
        own = {name: getattr(recipe, name) for name in ("epochs", "learning_rate", "batch", "accumulate")}
        return replace(self, **{name: value for name, value in own.items() if getattr(self, name) is None})


@dataclass
class Trained:
    """What a run leaves: the network, peft's model around it if there are adapters, and how it went.

    ``history`` are the Trainer's log lines: ``step`` and ``seconds`` so far with ``loss``, or with what
    ``Scores.summary`` says, as ``eval_loss`` and so on. ``earlier_seconds`` are those up to the checkpoint that it was
    continued from.
    """

    network: DragonflyForCausalLM
    adapted: Any
    history: list[dict[str, Any]] = field(default_factory=list)
    earlier_seconds: float = 0.0


class TrainingRun:
    """One run in the folder ``work``, begun or continued by ``train``.

    Args:
        network: on the CPU, with PyTorch's attention; it is changed in place.
        samples, held_out: anything with ``len`` and ``[i]``; a sample may be made, and drawn anew, when it is asked
            for. What is held out may be empty.
    """

    def __init__(
        self,
        network: DragonflyForCausalLM,
        processor: DragonflyProcessor,
        samples: Sequence[Sample],
        held_out: Sequence[Sample],
        settings: Settings,
        work: Path,
        callbacks: Sequence[TrainerCallback] = (),
    ) -> None:
        self.settings = settings = settings.complete()
        self.network = network
        set_seed(settings.seed)  # adapters begin at random
        self.adapted = prepare_network(network, RECIPES[settings.recipe], settings)
        self._maker = SequenceMaker(processor, settings.teaching)
        self._yes_no = yes_no_of(processor)
        self._work = work
        self.trainer = _Trainer(
            model=Learner(network, processor, settings.mixed_precision),
            args=_arguments(settings, work, evaluates=len(held_out) > 0),
            data_collator=self._maker.batch,
            train_dataset=samples,
            eval_dataset=held_out,
            callbacks=list(callbacks),
        )
        self.trainer.scores = lambda: self.score(held_out)
        if settings.save_every is None:
            self.trainer.add_callback(_OftenEnough())
        self.trainer.remove_callback(PrinterCallback)  # its stdout belongs to results

    def score(self, samples: Sequence[Sample]) -> Scores:
        """How the network answers ``samples`` now; every process must call it, and each gets the whole result."""
        args = self.trainer.args
        mine = _Every(samples, args.process_index, args.world_size)
        batches = DataLoader(mine, batch_size=args.per_device_eval_batch_size, collate_fn=self._maker.batch)
        part = score(self.trainer.model, batches, self._yes_no)
        sums = torch.tensor(list(vars(part).values()), dtype=torch.float64, device=args.device)
        whole = self.trainer.accelerator.reduce(sums, reduction="sum").tolist()
        return Scores(*whole[:2], *map(int, whole[2:]))

    def train(self) -> Trained:
        """Trains to the end, from the last whole checkpoint in ``work`` if there is one."""
        checkpoint = last_checkpoint(self._work, self.trainer.args.world_size)
        state = TrainerState.load_from_json(str(checkpoint / _STATE_FILE)) if checkpoint else None
        earlier_seconds = state.log_history[-1].get("seconds", 0.0) if state else 0.0
        self.trainer.began = perf_counter() - earlier_seconds
        if checkpoint and state and state.global_step >= state.max_steps:  # the Trainer would do one step more
            self.trainer.model.load_state_dict(load_file(checkpoint / _WEIGHTS_FILE), strict=False)
            self.trainer.state = state
        else:
            self.trainer.train(resume_from_checkpoint=str(checkpoint) if checkpoint else None)
        # the Trainer's last line sums up what was done since it was continued
        history = [entry for entry in self.trainer.state.log_history if "train_runtime" not in entry]
        return Trained(self.network, self.adapted, history, earlier_seconds)

    def release(self) -> DragonflyForCausalLM:
        """The network as it answers, with PyTorch's attention; neither ``score`` nor ``train`` works after this."""
        self.network.language_model.set_attn_implementation("sdpa")
        return self.network.eval()


def prepare_network(network: DragonflyForCausalLM, recipe: Recipe, settings: Settings) -> Any:
    """Chooses what learns; returns peft's model around the network where the recipe has adapters."""
    choose_parameters(network, recipe, torch.bfloat16 if settings.mixed_precision else torch.float32)
    adapted = add_adapters(network, settings.adapters) if recipe.adapters else None
    for module in network.modules():
        if hasattr(module, "support_avx512bf16_for_cpu"):
            # bitsandbytes would repack 4-bit weights in an evaluation, and no gradient passes through what it makes
            module.support_avx512bf16_for_cpu = False
    if settings.gradient_checkpointing:
        network.gradient_checkpointing_enable({"use_reentrant": False})
    return adapted


def last_checkpoint(work: Path, processes: int = 1) -> Path | None:
    """The newest checkpoint that all processes wrote to its end; what a kill has left of others is removed."""
    whole = {}
    for folder in work.glob("checkpoint-*"):
        try:
            whole[_step_of(folder, processes)] = folder
        except (OSError, ValueError, KeyError, TypeError, SafetensorError):
            shutil.rmtree(folder, ignore_errors=True)
    return whole[max(whole)] if whole else None


def _step_of(folder: Path, processes: int) -> int:
    """The step of a checkpoint; raises one of several errors where a file is missing or has lost its end."""
    state = json.loads((folder / _STATE_FILE).read_text(encoding="utf-8"))
    with safe_open(folder / _WEIGHTS_FILE, "pt"):
        pass
    random = [f"rng_state_{number}.pth" for number in range(processes)] if processes > 1 else ["rng_state.pth"]
    for name in ("optimizer.pt", "scheduler.pt", *random):
        if not is_zipfile(folder / name):  # where it is missing, the Trainer would go on without it
            raise ValueError(f"{name} is not whole")
    return int(state["global_step"])


class _Every(Dataset[Sample]):
    """Each ``count``-th sample, from the ``first`` on."""

    def __init__(self, samples: Sequence[Sample], first: int, count: int) -> None:
        self._samples, self._numbers = samples, range(first, len(samples), count)

    def __len__(self) -> int:
        return len(self._numbers)

    def __getitem__(self, index: int) -> Sample:
        return self._samples[self._numbers[index]]


class _OftenEnough(TrainerCallback):
    """Saves a short run more often: else a kill would take all of it."""

    def on_train_begin(self, args: TrainingArguments, state: TrainerState, control: Any, **_: Any) -> None:
        state.save_steps = min(state.save_steps, -(-state.max_steps // _SAVED))


class _Trainer(Trainer):
    """With the reference's weight decay, losses weighted by id, and checkpoints of what learns alone."""

    scores: Callable[[], Scores]
    began: float  # when it would have, if it had never been interrupted
    control: Any

    def get_decay_parameter_names(self, model: nn.Module) -> list[str]:
        # the reference left out every name with embed_tokens in it, and the projector is called vision_embed_tokens
        return [name for name in super().get_decay_parameter_names(model) if "embed_tokens" not in name]

    def create_scheduler(self, num_training_steps: int, optimizer: Any = None) -> Any:
        # transformers rounds up, and the first step of a warm-up learns nothing: it would be all of a run of one step
        if num_training_steps * self.args.warmup_steps < 1:
            self.args.warmup_steps = 0
        return super().create_scheduler(num_training_steps, optimizer)

    def _get_num_items_in_batch(self, batch_samples: list, device: torch.device) -> torch.Tensor:
        weights = sum((batch["weights"].sum() for batch in batch_samples), start=torch.zeros(()))
        return self.accelerator.reduce(weights.to(device), reduction="sum")

    def log(self, logs: dict[str, float], start_time: float | None = None) -> None:
        super().log({**logs, "seconds": round(perf_counter() - self.began, 3)}, start_time)

    def evaluate(self, *_: Any, **__: Any) -> dict[str, float]:
        summary = self.scores().summary()
        metrics = {f"eval_{name}": value for name, value in summary.items() if value is not None}
        self.log(dict(metrics))
        self.control = self.callback_handler.on_evaluate(self.args, self.state, self.control, metrics)
        return metrics

    def _save(self, output_dir: str | None = None, state_dict: dict | None = None) -> None:
        if not self.args.should_save:
            return
        folder = Path(output_dir or self.args.output_dir)
        folder.mkdir(parents=True, exist_ok=True)
        learning = {name: value.detach() for name, value in self.model.named_parameters() if value.requires_grad}
        save_file(learning, folder / _WEIGHTS_FILE, metadata={"format": "pt"})


def _arguments(settings: Settings, work: Path, evaluates: bool) -> TrainingArguments:
    arguments = TrainingArguments(
        output_dir=str(work),
        per_device_train_batch_size=settings.batch,
        per_device_eval_batch_size=settings.batch,
        gradient_accumulation_steps=settings.accumulate,
        num_train_epochs=settings.epochs,
        max_steps=settings.steps or -1,
        learning_rate=settings.learning_rate,
        lr_scheduler_type="cosine",
        warmup_steps=settings.warmup,
        adam_beta1=0.9,
        adam_beta2=0.999,
        weight_decay=settings.weight_decay,
        max_grad_norm=settings.clip,
        seed=settings.seed,
        data_seed=settings.seed,
        save_steps=settings.save_every or _SAVED_WITHIN,
        save_total_limit=_KEPT_CHECKPOINTS,
        eval_strategy="steps" if evaluates else "no",
        eval_steps=settings.evaluate_every or 0.2,  # below 1 it is a share of all steps
        logging_steps=1,
        logging_nan_inf_filter=False,
        dataloader_num_workers=settings.workers,
        dataloader_pin_memory=False,
        ddp_find_unused_parameters=False,
        remove_unused_columns=False,
        use_cpu=settings.use_cpu,
        disable_tqdm=True,
        report_to="none",
    )
    # several GPUs are used by several processes, never by DataParallel
    if arguments.n_gpu > 1:
        arguments._n_gpu = 1
    return arguments
