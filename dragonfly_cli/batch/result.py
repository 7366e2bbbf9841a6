"""One row of a run: which item and question it is about, and the record of the answer or why there is none."""

from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from statistics import fmean
from typing import Any

from dragonfly_cli.engine.questions import CUT, HARDLY_APART, UNCONFIRMED
from dragonfly_cli.output.files import storable
from dragonfly_cli.output.record import SCHEMA_VERSION
from dragonfly_cli.output.table import answer_row, failure_row
from dragonfly_cli.readers.source import LOSSES

Key = tuple[str, str, str]  # image path, question and row options, as they stand in the table


def key_of(image: object, question: str | None, row_options: str) -> Key:
    return storable(str(image)), storable(question or ""), storable(row_options)


@dataclass(frozen=True)
class Result:
    """``record`` is that of an answer, with ``error_code`` None; a failure has none, and says why.

    An answer that was read back from a table has no record, but may have a ``held_distance`` from its control.
    """

    key: Key
    record: dict[str, Any] | None = None
    error_code: int | None = None
    error: str = ""
    held_distance: float | None = field(default=None, compare=False)  # a table rounds it, a record does not

    @property
    def failed(self) -> bool:
        return self.error_code is not None

    @property
    def control_distance(self) -> float | None:
        """How far the answer is from the one without the picture, where that was asked for."""
        if self.record is None:
            return self.held_distance
        control = self.record["control"]
        return control["distance"] if control else None

    @property
    def losses(self) -> list[str]:
        """The warnings of parts of the image that the answer is not about, each with the image's name."""
        told = self.record["warnings"] if self.record else []
        return [f"{self.key[0]}: {warning}" for warning in told if any(words in warning for words in LOSSES)]

    @property
    def shortcomings(self) -> list[str]:
        """The warnings that any number of answers may have in common, whatever image they are about."""
        told = self.record["warnings"] if self.record else []
        return [warning for warning in (CUT, UNCONFIRMED) if warning in told]

    def without_record(self) -> "Result":
        """As it would be read back."""
        return replace(self, record=None, held_distance=self.control_distance)

    def as_row(self) -> dict[str, str]:
        image, question, row_options = self.key
        if self.record is None:
            return failure_row(image, question, self.error_code or 0, self.error, row_options)
        return answer_row(self.record | {"row_options": row_options})

    def as_record(self) -> dict[str, Any]:
        image, question, row_options = self.key
        beside = {"row_options": row_options, "status": "failed" if self.failed else "ok"}
        if self.record is not None:
            return self.record | beside
        asked = {"schema_version": SCHEMA_VERSION, "image": image, "question": question or None}
        return asked | beside | {"error_code": self.error_code, "error": self.error}


def control_summary(results: Iterable[Result]) -> str:
    """What is to be known of the answers that were asked for again with nothing to be seen; empty without any."""
    distances = [result.control_distance for result in results if result.control_distance is not None]
    if not distances:
        return ""
    hardly = sum(distance < HARDLY_APART for distance in distances)
    answers = f"{len(distances)} answers are" if len(distances) > 1 else "one answer is"
    return (
        f"control: without the picture {answers} {fmean(distances):.2f} apart on average (0 is the same, 1 the "
        f"farthest); {hardly} of them hardly change{'s' * (hardly == 1)}"
    )
