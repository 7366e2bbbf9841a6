"""What each field of a record is called and says for the answer: a number, words, a colour; for text and pictures."""

from collections import Counter
from typing import Any

from dragonfly_cli.engine.questions import DOUBTFUL_OPTION_MASS

Colour = tuple[int, int, int]

YES_COLOUR: Colour = (200, 30, 45)
NO_COLOUR: Colour = (40, 100, 180)
BETWEEN: Colour = (150, 150, 150)
AGREES_COLOUR: Colour = (0, 130, 120)


def support(record: dict[str, Any], field: dict[str, Any]) -> float:
    """P(yes) of a yes/no question, else the field's probability of the answer, else 1 where it is the same answer.

    Of a field that was looked at twice it is the lower P(yes). Where no field can have said the answer, the likeliest
    option is taken in place of "uncertain", and the commonest answer of the fields in place of a synthesised one.
    """
    said = field["probabilities"]
    if said is None:
        return float(field["answer"] == _voted(record))
    if not says_yes_or_no(field):
        return float(said.get(_voted(record), 0.0))
    again = [each["probabilities"]["yes"] for each in record["fields"] if each["second_look_of"] == field["id"]]
    return min([said["yes"], *again])


def says_yes_or_no(said: dict[str, Any]) -> bool:
    """Whether a field, or the record, has probabilities of yes and no, and of nothing else."""
    return (said["probabilities"] or {}).keys() == {"yes", "no"}


def agreement(record: dict[str, Any]) -> str:
    """What a field says that agrees, as a legend calls it, where no yes or no was asked for."""
    if record["abstained"]:
        return "says likeliest"
    return "says commonest" if record["aggregate"] == "synthesise" else "says so"


def _voted(record: dict[str, Any]) -> str:
    if record["abstained"]:
        said: dict[str, float] = record["probabilities"]
        return max(said, key=lambda option: said[option])
    if record["aggregate"] == "synthesise":
        return str(Counter(field["answer"] for field in record["fields"]).most_common(1)[0][0])
    return str(record["answer"])


def colour(record: dict[str, Any], field: dict[str, Any]) -> Colour:
    """Red for yes, blue for no, grey where they are even; for other questions green as the field agrees."""
    value = support(record, field)
    if not says_yes_or_no(field):
        return _mixed(BETWEEN, AGREES_COLOUR, value)
    if value >= 0.5:
        return _mixed(BETWEEN, YES_COLOUR, 2 * value - 1)
    return _mixed(BETWEEN, NO_COLOUR, 1 - 2 * value)


def name_of(record: dict[str, Any], field: dict[str, Any]) -> str:
    """``zoom 3``; of several frames also the one that it lies in, as ``--frame`` counts: ``field 1 (frame 6)``.

    A field's id counts what was looked at, so a slice is not called by it.
    """
    role = "field" if field["role"] == "slice" else field["role"]
    return f"{role} {field['id']}" + (f" (frame {field['frame']})" if has_frames(record) else "")


def has_frames(record: dict[str, Any]) -> bool:
    """Whether the image has several, so that what is told of a field must name its own."""
    return bool(record["source"]["frames"] > 1)


def rounded(probability: float) -> str:
    """``0.97``, but ``> 0.99`` or ``< 0.01`` where two digits would read as certainty."""
    if 0.005 <= probability < 0.995:
        return f"{probability:.2f}"
    return "> 0.99" if probability > 0.5 else "< 0.01"


def p_of_answer(said: dict[str, Any]) -> str:
    """``p = 0.97`` of the likeliest answer, given the probabilities of all."""
    text = rounded(max(said.values()))
    return f"p {text}" if text[0] in "<>" else f"p = {text}"


def sureness(record: dict[str, Any]) -> str:
    """``p = 0.97`` of the answer, or ``no 0.52, yes 0.48``, what it lies between where that is uncertain."""
    said: dict[str, float] = record["probabilities"]
    if not record["abstained"]:
        return p_of_answer(said)
    likely = sorted(said.items(), key=lambda item: -item[1])[:2]
    return ", ".join(f"{option} {rounded(p)}" for option, p in likely)


def certainty(record: dict[str, Any]) -> str:
    """`` (p = 0.93)`` after a chosen answer, what it lies between after ``uncertain``, nothing after a free answer."""
    probabilities = record["probabilities"]
    if not probabilities:
        return ""
    return f" ({sureness(record)}{_corrected(record)}{_poor_fit(record)})"


def _corrected(record: dict[str, Any]) -> str:
    """The calibrated probability of the answer, or of yes where that is uncertain; nothing where there is none."""
    calibrated = record["calibrated"]
    if not calibrated:
        return ""
    if record["abstained"]:
        return f", calibrated yes {rounded(calibrated['yes'])}"
    return f", calibrated {rounded(calibrated[record['answer'].lower()])}"


def _poor_fit(record: dict[str, Any]) -> str:
    mass = record["option_mass"]
    if mass >= DOUBTFUL_OPTION_MASS:
        return ""
    what = "yes and no" if record["settings"]["type"] == "yesno" else "the options"
    return f", but {what} hold only {mass:.0%} of the probability"


def told_mpp(mpp: float) -> str:
    """Three digits, or a whole number."""
    return f"{mpp:.0f}" if mpp >= 100 else f"{mpp:.3g}"


def verdict(field: dict[str, Any]) -> str:
    """``Yes 0.97``, or the answer alone where there is no probability."""
    said = field["probabilities"]
    return field["answer"] if said is None else f"{field['answer']} {rounded(max(said.values()))}"


def _mixed(one: Colour, other: Colour, share: float) -> Colour:
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue
