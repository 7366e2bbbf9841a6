"""What a user sees of a training: a line now and then, and an error once going on makes no sense."""

import math
from pathlib import Path
from typing import Any

from transformers import TrainerCallback

from dragonfly_cli.errors import UsageError
from dragonfly_cli.finetuning.processes import say_once

_LINES = 20


def diverged(step: int, checkpoints: Path) -> UsageError:
    """The error for it. Checkpoints can only be gone on from with the same settings, and some may be ruined."""
    elsewhere = " and another --output" if any(checkpoints.glob("checkpoint-*")) else ""
    return UsageError(
        f"the loss is no longer a number after step {step}", f"use a smaller --lr, or --precision fp32{elsewhere}"
    )


class Progress(TrainerCallback):
    """About twenty lines on stderr, and one per evaluation; of several processes, the first one speaks."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        loss = logs.get("loss")
        if not all(math.isfinite(logs.get(name, 0)) for name in ("loss", "eval_loss")):
            raise diverged(state.global_step, Path(args.output_dir))
        step = f"step {state.global_step} of {state.max_steps}"
        if loss is not None and state.global_step % max(1, state.max_steps // _LINES) == 0:
            say_once(f"note: {step}: loss {loss:.4g}")
        if "eval_loss" in logs:
            say_once(f"note: {step}: held-out loss {logs['eval_loss']:.4g}")
