"""From what the model says of several fields to one answer, by a rule that the record names.

A finding may fill a small part of an image, so by default a yes/no question takes the mean over the three fields that
say yes most strongly. An open question takes the answer that most fields give.
"""

from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass
from math import prod
from statistics import fmean

from dragonfly_cli.engine.answering import FieldAnswer, Timing
from dragonfly_cli.engine.questions import Question, doubts_about
from dragonfly_cli.options import Aggregate

_MOST = 3


@dataclass(frozen=True)
class Answer:
    """One question's answer over all fields; ``aggregate`` is None where there was one field and nothing to combine."""

    question: Question
    text: str
    probabilities: dict[str, float] | None
    option_mass: float | None
    aggregate: Aggregate | None
    fields: list[FieldAnswer]

    @property
    def prompt(self) -> str:
        return self.fields[0].prompt

    @property
    def timing(self) -> Timing:
        """The sums over all fields."""
        return Timing(
            sum(each.timing.read_s for each in self.fields),
            sum(each.timing.encode_s for each in self.fields),
            sum(each.timing.generate_s for each in self.fields),
        )

    @property
    def warnings(self) -> list[str]:
        return doubts_about(self.option_mass)


def aggregate(answers: list[FieldAnswer], rule: Aggregate) -> Answer:
    """One answer from those of all fields (at least one), which have the question in common.

    For yes/no, P(yes) is: ``mean`` and ``top3-mean`` (the default) the mean of all or of the three highest, ``max`` the
    highest, ``any`` the chance that at least one field is right in saying yes, ``vote`` the share of fields that say
    yes. Other questions take the most frequent answer, of equals the first, whatever the rule.
    """
    first = answers[0]
    if len(answers) == 1:
        return Answer(first.question, first.text, first.probabilities, first.option_mass, None, answers)
    said = [each.probabilities["yes"] for each in answers if each.probabilities]
    if len(said) < len(answers):
        text = Counter(each.text for each in answers).most_common(1)[0][0]
        return Answer(first.question, text, None, None, Aggregate.vote, answers)
    chosen = Aggregate.top3_mean if rule is Aggregate.auto else rule
    yes = _P_YES[chosen](said)
    mass = fmean(each.option_mass for each in answers if each.option_mass is not None)
    return Answer(first.question, "Yes" if yes > 0.5 else "No", {"yes": yes, "no": 1 - yes}, mass, chosen, answers)


_P_YES: dict[Aggregate, Callable[[list[float]], float]] = {
    Aggregate.any: lambda said: 1 - prod(1 - yes for yes in said),
    Aggregate.max: max,
    Aggregate.mean: fmean,
    Aggregate.top3_mean: lambda said: fmean(sorted(said)[-_MOST:]),
    Aggregate.vote: lambda said: fmean(yes > 0.5 for yes in said),
}
