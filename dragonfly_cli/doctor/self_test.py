"""The blindness self-test: with the installed model, another picture must give other logits.

A network whose vision branch is skipped runs cleanly and answers every question, about no picture at all.
"""

from collections.abc import Iterator
from typing import TYPE_CHECKING

from dragonfly_cli.doctor.finding import DoctorSettings, Finding, ok, problem
from dragonfly_cli.errors import DragonflyError

if TYPE_CHECKING:
    import torch

    from dragonfly_cli.engine.model import Model

_QUESTION = "Is this image blank?"
_SIDE_PX = 256

# A blind network's logits are equal to the last bit; one that sees moves them by a hundredth and more.
_SMALLEST_CHANGE = 1e-4


def blindness(settings: DoctorSettings) -> Iterator[Finding]:
    """Loads the model as a question would, and asks it about a white picture and about noise."""
    from dragonfly_cli.engine.checkpoints import find_checkpoint
    from dragonfly_cli.engine.model import computing_errors, load_model

    name = "sees the picture"
    try:
        model = load_model(find_checkpoint(settings.model), settings.device, settings.quant, settings.attn)
    except DragonflyError as error:
        yield problem(name, f"the model cannot be loaded: {error.message}", error.hint)
        return
    try:
        with computing_errors(model):
            white, noise = _logits_of_two_pictures(model)
    except DragonflyError as error:
        yield problem(name, error.message, error.hint)
        return
    change = float((white - noise).norm() / white.norm())
    who = f"model {model.identity.id} ({model.identity.quantization}, {model.identity.dtype}) on {model.device}"
    if change > _SMALLEST_CHANGE:
        yield ok(name, f"{who}: noise instead of white moves the logits by {change:.1%}")
    else:
        yield problem(
            name,
            f"{who} is blind: noise instead of white moves the logits by {change:.1e}",
            "do not use its answers; reinstall the versions above that are wanted, and report this",
        )


def _logits_of_two_pictures(model: "Model") -> "tuple[torch.Tensor, torch.Tensor]":
    import numpy as np
    from PIL import Image

    noise = np.random.default_rng(0).integers(0, 256, (_SIDE_PX, _SIDE_PX, 3), dtype=np.uint8)
    prompt = model.processor.text_ids(model.processor.prompt(_QUESTION))
    white, noisy = (
        model.reading(model.processor.pixels(image)).logits(prompt)
        for image in (Image.new("RGB", (_SIDE_PX, _SIDE_PX), "white"), Image.fromarray(noise))
    )
    return white, noisy
