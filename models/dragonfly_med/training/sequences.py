"""Training sequences: one image block, then many conversations that share it.

Every conversation begins at the position right after the image block and sees that block and itself only. So one
sequence teaches exactly what as many separate prompts would, and the image, most of every prompt, is read once.

Which ids are learnt: of the reference's rows everything after the first BOS - question, answer, <|eot_id|>, and the
<|end_of_text|> that ends them; here, unless that is asked for, only answers and their <|eot_id|>.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Literal

import torch

from dragonfly_med.errors import PromptTooLongError
from dragonfly_med.processing import TRAINED_LENGTH, DragonflyProcessor
from dragonfly_med.training.samples import Conversation, Exchange, Sample

Loss = Literal["answer-only", "reference"]

BEGIN_OF_TEXT, END_OF_TURN = "<|begin_of_text|>", "<|eot_id|>"

NO_ANSWER = -1  # in ``TextPart.answers``: an id outside every answer
_PADDING_BLOCK = -1


@dataclass(frozen=True)
class Teaching:
    """What of a sequence is learnt, and its room.

    An id of an answer of n ids weighs n ** -length_power: 0 counts every id the same, as the reference does; above 0
    long answers do not drown Yes and No. ``max_length`` counts the whole sequence, image block included, and as in
    the reference a conversation may take half of it, less one id; ``None`` is what the network was trained with.
    """

    loss: Loss = "answer-only"
    length_power: float = 0.0
    max_length: int | None = None


@dataclass
class TextPart:
    """The text of a sequence; all lists have one entry per id."""

    ids: list[int] = field(default_factory=list)
    positions: list[int] = field(default_factory=list)  # counted from the end of the image block
    blocks: list[int] = field(default_factory=list)  # number of the conversation
    weights: list[float] = field(default_factory=list)  # of predicting this id; 0 where nothing is learnt
    answers: list[int] = field(default_factory=list)  # number of the answer, or NO_ANSWER

    def add_block(self, ids: list[int], weights: list[float], answers: list[int]) -> None:
        """Appends one conversation, whose answers are numbered from 0."""
        first = 1 + max(self.answers, default=NO_ANSWER)
        self.blocks += [self.blocks[-1] + 1 if self.blocks else 0] * len(ids)
        self.positions += range(len(ids))
        self.ids += ids
        self.weights += weights
        self.answers += [NO_ANSWER if number == NO_ANSWER else first + number for number in answers]


class SequenceMaker:
    """Turns conversations into ids, and samples into the tensors of a batch."""

    def __init__(self, processor: DragonflyProcessor, teaching: Teaching) -> None:
        self._processor = processor
        self._teaching = teaching
        self._max_length = teaching.max_length or TRAINED_LENGTH[processor.architecture]

    @property
    def text_room(self) -> int:
        """How many ids of text fit behind the image block."""
        return self._max_length - len(self._processor.image_block())

    def text_part(self, conversations: Sequence[Conversation]) -> TextPart:
        """The text of one sequence; raises PromptTooLongError rather than cutting any of it."""
        part = TextPart()
        for conversation in conversations:
            part.add_block(*self._block(conversation))
        if len(part.ids) > self.text_room:
            raise PromptTooLongError(f"the text has {len(part.ids)} tokens, and {self.text_room} fit behind the image")
        return part

    def packed(self, conversations: Sequence[Conversation]) -> list[list[Conversation]]:
        """The conversations in their order, in as few sequences as hold them; raises PromptTooLongError."""
        packs: list[list[Conversation]] = []
        room = 0
        for conversation in conversations:
            length = len(self.text_part([conversation]).ids)
            if length > room:
                packs.append([])
                room = self.text_room
            packs[-1].append(conversation)
            room -= length
        return packs

    def batch(self, samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
        """The arguments of ``Learner``: text [samples, length], padded on the right, and pixels or features."""
        parts = [self.text_part(sample.conversations) for sample in samples]
        end = self._processor.end_of_text_id
        batch = {
            "ids": _padded([part.ids for part in parts], end),
            "positions": _padded([part.positions for part in parts], 0),
            "blocks": _padded([part.blocks for part in parts], _PADDING_BLOCK),
            "weights": _padded([part.weights for part in parts], 0.0),
            "answers": _padded([part.answers for part in parts], NO_ANSWER),
        }
        return batch | _images(samples)

    def _block(self, conversation: Conversation) -> tuple[list[int], list[float], list[int]]:
        begin = self._processor.tokenizer.convert_tokens_to_ids(BEGIN_OF_TEXT)
        ids, weights, answers = [begin], [0.0], [NO_ANSWER]
        prompt_weight = 1.0 if self._teaching.loss == "reference" else 0.0
        for number, exchange in enumerate(conversation):
            prompt, answer = self._exchange_ids(exchange)
            ids += prompt + answer
            weights += [prompt_weight] * len(prompt) + [len(answer) ** -self._teaching.length_power] * len(answer)
            answers += [NO_ANSWER] * len(prompt) + [number] * len(answer)
        limit = self._max_length // 2 - 1
        if len(ids) > limit:
            raise PromptTooLongError(f"question and answer have {len(ids)} tokens, and at most {limit} are read")
        if self._teaching.loss == "reference":
            return [*ids, self._processor.end_of_text_id], [*weights, 1.0], [*answers, NO_ANSWER]
        return ids, weights, answers

    def _exchange_ids(self, exchange: Exchange) -> tuple[list[int], list[int]]:
        """Prompt and answer apart, as generation meets them: no token spans both."""
        prompt = self._processor.prompt(exchange.question, exchange.system)
        encode = self._processor.tokenizer.encode
        answer = encode(exchange.answer.strip() + END_OF_TURN, add_special_tokens=False)
        return encode(prompt, add_special_tokens=False), answer


def _padded(rows: Sequence[Sequence[float]], fill: float) -> torch.Tensor:
    length = max(map(len, rows))
    return torch.tensor([[*row, *[fill] * (length - len(row))] for row in rows])


def _images(samples: Sequence[Sample]) -> dict[str, torch.Tensor]:
    features = [sample.features for sample in samples if sample.features is not None]
    pixels = [sample.pixels for sample in samples if sample.pixels is not None]
    if features and pixels:
        raise ValueError("samples with pixels and samples with features cannot be in one batch")
    return {"features": torch.stack(features)} if features else {"pixels": torch.stack(pixels)}
