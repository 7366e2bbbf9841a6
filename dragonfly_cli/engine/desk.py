"""Where free answers wait until several are written at once, so that the network's weights are read once for all.

Which answers are written together follows from the order in which they were asked for, and from nothing else. Non-goal:
what is made of the answers.
"""

from collections.abc import Callable
from typing import TypeVar

from dragonfly_cli.engine.answering import Draft, FieldAnswer, Look, OnText, answer, draft, say_nothing, write
from dragonfly_cli.engine.model import Model
from dragonfly_cli.engine.questions import Question
from dragonfly_cli.errors import DeviceError
from dragonfly_med.generation import Sampling

# Bounds memory: a draft holds 0.14 GB (v1) or 0.30 GB (v2) of the device's, and as much again while it is answered.
MOST_TOGETHER = 8

Computed = TypeVar("Computed")


class Desk:
    """Takes questions about fields, and puts the answers where the one who asks wants them.

    What takes more memory than there is beside the drafts is computed once they are answered and gone.
    """

    def __init__(self, model: Model, sampling: Sampling, most: int = MOST_TOGETHER) -> None:
        """``most`` free answers at a time are written."""
        self.model = model
        self.sampling = sampling
        self._most = most
        self._waiting: list[tuple[Draft, list[FieldAnswer]]] = []

    def ask(self, look: Look, question: Question, answers: list[FieldAnswer], aloud: OnText | None = None) -> None:
        """Adds the answer to ``answers``: a free one when it is written, that to a typed question now.

        A free answer is given now, too, where it is told ``aloud``, piece by piece as it comes.
        Raises what ``answering.answer`` does.
        """
        if question.options or aloud:
            on_text = aloud or say_nothing
            answers.append(self._with_room(lambda: answer(self.model, look, question, self.sampling, on_text)))
            return
        drafted = self._with_room(lambda: draft(self.model, look, question))
        self._waiting.append((drafted, answers))
        if len(self._waiting) == self._most:
            self.write()

    def write(self) -> None:
        """Writes all answers that wait; raises DeviceError when memory runs out, and then none is given."""
        if not self._waiting:
            return
        waiting, self._waiting = self._waiting, []
        for (_, answers), written in zip(waiting, self._written([each for each, _ in waiting]), strict=True):
            answers.append(written)

    def _written(self, drafts: list[Draft]) -> list[FieldAnswer]:
        try:
            return write(self.model, drafts, self.sampling)
        except DeviceError:
            for each in drafts:
                each.forget()
        return [self._answered_alone(each) for each in drafts]

    def _answered_alone(self, drafted: Draft) -> FieldAnswer:
        try:
            return answer(self.model, drafted.look, drafted.answered.question, self.sampling)
        finally:
            drafted.look.reading.forget()

    def _with_room(self, compute: Callable[[], Computed]) -> Computed:
        try:
            return compute()
        except DeviceError:
            if not self._waiting:
                raise
        self.write()
        return compute()
