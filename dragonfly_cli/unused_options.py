"""Options of ``ask`` and ``caption`` on which nothing depends that is looked at or asked."""

import os

from dragonfly_cli.engine.questions import Question
from dragonfly_cli.fields import LookPlan
from dragonfly_cli.option_values import Aggregate, Rank
from dragonfly_cli.options import AnswerOptions, EvidenceOptions, LookOptions

_OF_FREE_ANSWERS = (Aggregate.auto, Aggregate.vote, Aggregate.synthesise)


def unused_options(
    looking: LookOptions,
    answering: AnswerOptions,
    evidence: EvidenceOptions,
    plan: LookPlan,
    questions: list[Question],
) -> list[str]:
    """Those that were given on the command line: the environment says what holds for every image."""
    are_free = not any(question.options for question in questions)
    is_unused = {
        "--rank": looking.rank is not Rank.auto and plan.search is None,
        "--time-limit": looking.time_limit is not None and plan.time_limit is None,
        "--budget": looking.budget is not None and looking.frame is not None and plan.tissue is None,
        "--no-bounds-offset": not (looking.bounds_offset or looking.roi or evidence.geojson),
        "--abstain": answering.abstain > 0 and are_free,
        "--aggregate": answering.aggregate not in _OF_FREE_ANSWERS and are_free,
    }
    return [option for option, unused in is_unused.items() if unused and _variable(option) not in os.environ]


def _variable(option: str) -> str:
    return f"DRAGONFLY_{option.removeprefix('--').removeprefix('no-').replace('-', '_').upper()}"
