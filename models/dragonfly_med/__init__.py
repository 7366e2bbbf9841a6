"""Dragonfly as an importable package: configuration, processor and network, usable without the command line.

    from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor

    processor = DragonflyProcessor.from_pretrained(folder)
    model = DragonflyForCausalLM.from_pretrained(folder)
    inputs = processor(text=[processor.prompt("Is there necrosis?")], images=[image], return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=16, do_sample=False)

Nothing here opens a network connection. The names below are loaded when they are first used, so that the geometry in
``dragonfly_med.views`` and ``dragonfly_med.crops`` costs no import of torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from dragonfly_med.configuration import DragonflyConfig
    from dragonfly_med.errors import CheckpointError, ControlTokenError, NoNumbersError, PromptTooLongError
    from dragonfly_med.modeling import DragonflyForCausalLM
    from dragonfly_med.processing import DragonflyProcessor

_HOME = {
    "CheckpointError": "errors",
    "ControlTokenError": "errors",
    "DragonflyConfig": "configuration",
    "DragonflyForCausalLM": "modeling",
    "DragonflyProcessor": "processing",
    "NoNumbersError": "errors",
    "PromptTooLongError": "errors",
}

__all__ = [
    "CheckpointError",
    "ControlTokenError",
    "DragonflyConfig",
    "DragonflyForCausalLM",
    "DragonflyProcessor",
    "NoNumbersError",
    "PromptTooLongError",
]


def __getattr__(name: str) -> Any:
    if name not in _HOME:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    if name.startswith("Dragonfly"):
        import_module("dragonfly_med.auto")
    return getattr(import_module(f"dragonfly_med.{_HOME[name]}"), name)
