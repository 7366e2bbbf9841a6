"""From what the model says of several fields to one answer, by a rule that the record names.

A finding may fill a small part of an image, so by default a yes/no question takes the mean over the three fields that
say yes most strongly. ``confirmed`` looks at those once more, otherwise framed, and takes the strongest yes that both
looks agree on. A choice between options takes the mean probability of each over all fields, because no option is more
of a finding than another. An open question takes the answer that most fields give. ``synthesise``, which has the
language model write one from all of them, is in a module of its own (``synthesis``).
"""

from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from math import prod
from statistics import fmean

from dragonfly_cli.engine.answering import FieldAnswer, Timing, most_probable
from dragonfly_cli.engine.questions import CUT, HARDLY_APART, Question, doubts_about
from dragonfly_cli.option_values import Aggregate, Control

UNCERTAIN = "uncertain"

_STRONGEST_FIELDS = 3
_ROUNDING = 1e-9  # of shares of votes: 3/5 - 2/5 is less than 0.2 in binary
_MOSTLY_OWN_WORDS = 0.5  # of a final answer; a summary in good words of its own has more in common with its sources


@dataclass(frozen=True)
class ControlAnswer:
    """What is said without the picture, and how far that is from what is said with it, from 0 to 1."""

    kind: Control
    answer: str
    probabilities: dict[str, float] | None
    option_mass: float | None
    distance: float

    @property
    def warnings(self) -> list[str]:
        if self.distance >= HARDLY_APART:
            return []
        seen = "blanked" if self.kind is Control.blank else "shuffled"
        return [
            f"the picture hardly mattered: with it {seen} the answer is nearly the same ({self.distance:.2f} apart)"
        ]


@dataclass(frozen=True)
class Synthesis:
    """How the language model made one answer of those of the fields.

    ``prompt`` is what it was given, None where all fields said the same. ``answers`` counts the different answers,
    ``left_out`` those that did not fit into the prompt; ``from_fields`` is the share of the final answer's words that
    are found in any field's answer.
    """

    prompt: str | None
    answers: int
    left_out: int
    from_fields: float
    seconds: float

    @property
    def warnings(self) -> list[str]:
        missing = f"{self.left_out} of {self.answers} different answers were left out of the final one: too much text"
        strange = (
            f"only {self.from_fields:.0%} of the final answer's words are in what was said of the fields: read that"
        )
        return [missing] * bool(self.left_out) + [strange] * (self.from_fields < _MOSTLY_OWN_WORDS)


@dataclass(frozen=True)
class Answer:
    """One question's answer over all fields; ``aggregate`` is None where there was one field and nothing to combine.

    ``is_cut`` is a free one that might have gone on beyond the longest; ``left_out`` are warnings of fields that it is
    without.
    """

    question: Question
    text: str
    probabilities: dict[str, float] | None
    option_mass: float | None
    aggregate: Aggregate | None
    fields: list[FieldAnswer]
    is_cut: bool = False
    abstained: bool = False
    control: ControlAnswer | None = None
    calibrated: dict[str, float] | None = None
    synthesis: Synthesis | None = None
    search_s: float = 0.0  # what choosing the fields took
    control_s: float = 0.0
    left_out: Sequence[str] = ()

    @property
    def prompt(self) -> str:
        return self.fields[0].prompt

    @property
    def timing(self) -> Timing:
        """The sums over all fields, and what choosing and combining them took, and the control."""
        written_s = self.synthesis.seconds if self.synthesis else 0.0
        return Timing(
            sum(each.timing.read_s for each in self.fields),
            sum(each.timing.encode_s for each in self.fields),
            sum(each.timing.generate_s for each in self.fields) + written_s,
            self.search_s,
            self.control_s,
        )

    @property
    def warnings(self) -> list[str]:
        return [
            *self.left_out,
            *doubts_about(self.question.kind, self.option_mass),
            *([CUT] if self.is_cut else []),
            *(self.synthesis.warnings if self.synthesis else []),
            *(self.control.warnings if self.control else []),
        ]


def aggregate(answers: list[FieldAnswer], rule: Aggregate) -> Answer:
    """One answer from those of all fields (at least one), which have the question in common.

    For yes/no, P(yes) is: ``mean`` and ``top3-mean`` (the default) the mean of all or of the three highest, ``max`` the
    highest, ``any`` the chance that at least one field is right in saying yes, ``vote`` the share of fields that say
    yes; ``confirmed`` the highest of the fields that were looked at twice, each with the lower of its two looks, or
    ``top3-mean`` where there is none. Of other options the probability is the mean over all fields, or with
    ``vote`` the share of fields that prefer it. Free answers take the most frequent one, of equals the first, whatever
    the rule.
    """
    first = answers[0]
    if len(answers) == 1:
        mass = first.option_mass
        return Answer(first.question, first.text, first.probabilities, mass, None, answers, is_cut=first.is_cut)
    said = [each.probabilities for each in answers if each.probabilities]
    if len(said) < len(answers):
        text = Counter(each.text for each in answers).most_common(1)[0][0]
        is_cut = all(each.is_cut for each in answers if each.text == text)
        return Answer(first.question, text, None, None, Aggregate.vote, answers, is_cut=is_cut)
    if first.question.kind == "yesno":
        yes, chosen = _p_yes(answers, [each["yes"] for each in said], yes_no_rule(rule))
        probabilities = {"yes": yes, "no": 1 - yes}
    else:
        chosen = rule if rule is Aggregate.vote else Aggregate.mean
        probabilities = _mean_of_options(said, chosen)
    mass = fmean(each.option_mass for each in answers if each.option_mass is not None)
    return Answer(first.question, most_probable(first.question, probabilities), probabilities, mass, chosen, answers)


def yes_no_rule(rule: Aggregate) -> Aggregate:
    """The one that ``auto`` stands for, where yes or no was asked."""
    return Aggregate.top3_mean if rule is Aggregate.auto else rule


def abstain_within(answered: Answer, margin: float) -> Answer:
    """``uncertain`` in place of an answer whose two most probable options are less than ``margin`` apart."""
    if not answered.probabilities:
        return answered
    first, second, *_ = sorted(answered.probabilities.values(), reverse=True)
    is_near = first - second < margin - _ROUNDING
    return replace(answered, text=UNCERTAIN, abstained=True) if is_near else answered


def _p_yes(answers: list[FieldAnswer], votes: list[float], rule: Aggregate) -> tuple[float, Aggregate]:
    """P(yes) over all fields, each of which has a vote, and the rule that gave it."""
    if rule is Aggregate.confirmed:
        if twice := _confirmed(answers, votes):
            return max(twice), rule
        rule = Aggregate.top3_mean
    return _P_YES[rule](votes), rule


def _confirmed(answers: list[FieldAnswer], votes: list[float]) -> list[float]:
    """P(yes) of the fields that were looked at twice: the lower of both looks."""
    fields = [each.field for each in answers]
    vote_of: dict[int | None, float] = {field.id: vote for field, vote in zip(fields, votes, strict=True)}
    return [
        min(vote_of[field.id], vote_of[field.second_look_of]) for field in fields if field.second_look_of in vote_of
    ]


def _mean_of_options(said: list[dict[str, float]], rule: Aggregate) -> dict[str, float]:
    if rule is Aggregate.vote:
        said = [{option: float(option == max(each, key=each.__getitem__)) for option in each} for each in said]
    return {option: fmean(each[option] for each in said) for option in said[0]}


_P_YES: dict[Aggregate, Callable[[list[float]], float]] = {
    Aggregate.any: lambda said: 1 - prod(1 - yes for yes in said),
    Aggregate.max: max,
    Aggregate.mean: fmean,
    Aggregate.top3_mean: lambda said: fmean(sorted(said)[-_STRONGEST_FIELDS:]),
    Aggregate.vote: lambda said: fmean(yes > 0.5 for yes in said),
}
