"""What a user sees of a training: a line now and then, and an error once going on makes no sense."""

import math
from typing import Any

from transformers import TrainerCallback

from dragonfly_cli.errors import UsageError
from dragonfly_cli.output.terminal import say

_LINES = 20


class Progress(TrainerCallback):
    """About twenty lines on stderr, and one per evaluation; of several processes, the first one speaks."""

    def on_log(self, args: Any, state: Any, control: Any, logs: dict[str, Any] | None = None, **_: Any) -> None:
        logs = logs or {}
        loss = logs.get("loss")
        if not all(math.isfinite(logs.get(name, 0)) for name in ("loss", "eval_loss")):
            why = f"the loss is no longer a number after step {state.global_step}"
            raise UsageError(why, "use a smaller --lr, or --precision fp32")
        if not state.is_world_process_zero:
            return
        step = f"step {state.global_step} of {state.max_steps}"
        if loss is not None and state.global_step % max(1, state.max_steps // _LINES) == 0:
            say(f"note: {step}: loss {loss:.4g}")
        if "eval_loss" in logs:
            say(f"note: {step}: held-out loss {logs['eval_loss']:.4g}")
