"""The two small networks of ``golden``, and what they make of a picture and a question. Plain helpers, no fixtures."""

from pathlib import Path
from typing import Any

import torch
from make_files import GOLDEN
from PIL import Image

from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor

VERSIONS = ("v1", "v2")
QUESTION = "Is the heart enlarged?"


def open_network(folder: Path) -> tuple[DragonflyProcessor, DragonflyForCausalLM]:
    return DragonflyProcessor.from_pretrained(folder), DragonflyForCausalLM.from_pretrained(folder).eval()


def real() -> Image.Image:
    """A picture that shows something."""
    return Image.open(GOLDEN / "images" / "tiny_50x37.png")


@torch.inference_mode()
def first_logits(network: Any, images: list[Image.Image], questions: list[str]) -> torch.Tensor:
    """What follows each prompt: [rows, vocabulary]."""
    processor, model = network
    inputs = processor(text=[processor.prompt(question) for question in questions], images=images)
    return model(**inputs, logits_to_keep=1).logits[:, -1]
