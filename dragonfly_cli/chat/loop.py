"""The loop of a conversation: a line in, an answer out. stdout holds the answers, stderr everything else.

On a terminal lines can be edited and called back; they are kept in memory only, because a question may say something
about a patient. Piped lines are answered one after the other.
"""

import sys
from collections.abc import Iterator
from contextlib import closing, suppress
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_cli.chat.commands import Quit, run_command, where
from dragonfly_cli.engine.checkpoints import canvas_of, find_checkpoint
from dragonfly_cli.errors import DragonflyError, InputError, UsageError
from dragonfly_cli.fields import Field, arranged, check_looking, plan_looks
from dragonfly_cli.option_values import Aggregate, Rank
from dragonfly_cli.options import AnswerOptions, LookOptions, OpenOptions
from dragonfly_cli.output.files import is_text
from dragonfly_cli.output.notices import DEMO_WARNING
from dragonfly_cli.output.terminal import say, say_notices, say_warnings, show
from dragonfly_cli.output.votes import certainty
from dragonfly_cli.readers import Source, open_source
from dragonfly_cli.readers.source import spatial_order

if TYPE_CHECKING:  # imports torch
    from dragonfly_cli.chat.session import Session

_PROMPT = "> "
_BYTE_ORDER_MARK = "\ufeff"  # before the first line of a file that some editors write


def run_chat(image: Path, opening: OpenOptions, looking: LookOptions, answering: AnswerOptions) -> None:
    """Answers until the lines end or ``/quit``; raises DragonflyError if image or model cannot be opened."""
    check_looking(looking)
    checkpoint = find_checkpoint(answering.model)
    source = arranged(open_source(image, opening), looking)  # before torch is imported: a bad path is told at once
    field = _one_field(source, looking, canvas_of(checkpoint))
    from dragonfly_cli.chat.session import Session
    from dragonfly_cli.engine.model import load_model

    model = load_model(checkpoint, answering.device, answering.quant, answering.attn)
    of_one_field = replace(answering, aggregate=Aggregate.auto)
    with closing(Session(source, field, model, opening, looking, of_one_field)) as session:
        say_notices(checkpoint)
        say(f"note: {where(session)}; /help shows the commands")
        for note in _of_one_field(source, looking, answering):
            say(f"note: {note}")
        said = {DEMO_WARNING}
        with suppress(Quit):
            for line in _lines():
                _take(session, line, said)


def _one_field(source: Source, looking: LookOptions, canvas_wh: tuple[int, int]) -> Field:
    """What is looked at first: of several frames the middle one, unless others were asked for."""
    if source.frames > 1 and looking.frame is None and looking.slices is None:
        order = spatial_order(source)
        looking = replace(looking, frame=order[len(order) // 2])
    return plan_looks(source, looking, canvas_wh).fields[0]


def _of_one_field(source: Source, looking: LookOptions, answering: AnswerOptions) -> Iterator[str]:
    """What a user of ``ask``, which looks at many fields, may not expect here."""
    if source.kind == "slide":
        yield "a conversation is about one field at a time, which /region and /zoom move; ask searches a slide"
    elif source.frames > 1:
        yield "a conversation is about one frame at a time, which /frame changes; ask looks at several"
    if len(looking.region or ()) > 1:
        yield "the first --region is looked at; /region takes another"
    of_several = {
        "--budget": looking.budget is not None,
        "--rank": looking.rank is not Rank.auto,
        "--time-limit": looking.time_limit is not None,
        "--aggregate": answering.aggregate is not Aggregate.auto,
    }
    if given := [option for option, is_given in of_several.items() if is_given]:
        yield f"{', '.join(given)} will not be used: there is one field to answer from"


def _take(session: "Session", line: str, said: set[str]) -> None:
    """One line; whatever goes wrong with it, the conversation goes on. ``said`` are warnings not to be repeated."""
    try:
        if line.startswith("/"):
            for told in run_command(session, line).split("\n"):
                say(told)
        elif not is_text(line):
            raise UsageError("the question is not valid UTF-8", "write it again")
        elif line:
            _answer(session, line, said)
    except DragonflyError as error:
        say(f"error: {error.message}")
        say(f"hint: {error.hint}")
    except KeyboardInterrupt:
        show("\n")
        say("note: stopped; this question is not part of the conversation")


def _answer(session: "Session", line: str, said: set[str]) -> None:
    record = session.ask(line, show)
    show(certainty(record) + "\n")
    say_warnings(record, said, shown=True)
    said.update(session.source.warnings)


def _lines() -> Iterator[str]:
    try:
        yield from (
            _typed_lines()
            if sys.stdin.isatty() and sys.stdout.isatty()
            else (line.lstrip(_BYTE_ORDER_MARK).strip() for line in sys.stdin)
        )
    except UnicodeDecodeError:
        raise InputError("cannot read questions from stdin", "they must be UTF-8 text") from None


def _typed_lines() -> Iterator[str]:
    with suppress(ImportError):  # where it exists, importing it gives input() line editing and history
        import readline  # noqa: F401
    while True:
        try:
            yield input(_PROMPT).strip()
        except EOFError:
            show("\n")
            return
        except KeyboardInterrupt:
            show("\n")
            say("note: /quit or Ctrl-D leaves")
