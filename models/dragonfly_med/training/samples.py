"""What is learnt from: pictures, and the conversations about each."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Exchange:
    """One question and its answer; a system prompt goes before the question, inside the user's turn."""

    question: str
    answer: str
    system: str | None = None


Conversation = Sequence[Exchange]


@dataclass(frozen=True)
class Sample:
    """One picture and everything that is asked about it in one go.

    Every conversation sees the picture and itself, none of the others. The picture is given in one of two forms:
    ``pixels`` as ``DragonflyProcessor.pixels`` makes them, float32 [crops, 3, side, side], or ``features``, the row
    that ``DragonflyForCausalLM.image_features`` made of them, which spares a frozen encoder its work.
    """

    conversations: Sequence[Conversation]
    pixels: torch.Tensor | None = None
    features: torch.Tensor | None = None

    def __post_init__(self) -> None:
        if (self.pixels is None) == (self.features is None):
            raise ValueError("a sample needs either pixels or features")
        if not self.conversations or not all(self.conversations):
            raise ValueError("a sample needs a conversation, and a conversation an exchange")
