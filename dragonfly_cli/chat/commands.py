"""What begins with a slash in a conversation: a table of commands, each a function of the session and what follows."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from dragonfly_cli.errors import OutputError, UsageError
from dragonfly_cli.fields.regions import region_box
from dragonfly_cli.user_folders import expanded

if TYPE_CHECKING:  # imports torch
    from dragonfly_cli.chat.session import Session


@dataclass(frozen=True)
class Command:
    """``run`` returns what to tell the user."""

    usage: str
    does: str
    run: Callable[["Session", str], str]


class Quit(Exception):  # noqa: N818 - it is no error
    """The conversation is over."""


def run_command(session: "Session", line: str) -> str:
    """Runs ``/NAME REST`` and returns what to tell; raises UsageError for one that is unknown or wrongly used."""
    name, _, rest = line.strip().partition(" ")
    command = COMMANDS.get(name.lower())
    if command is None:
        raise UsageError(f"there is no {name}", "/help shows all commands")
    wanted = command.usage.partition(" ")[2]
    if bool(wanted) != bool(rest):
        what = f"{wanted} is missing" if wanted else "nothing may follow it"
        raise UsageError(f"{name}: {what}", f"{command.usage}: {command.does}")
    try:
        return command.run(session, rest.strip())
    except UsageError as error:  # which names the option of the same use
        option = f"--{name.lower()[1:]}"
        if not error.message.startswith(option):
            raise
        raise UsageError(name + error.message.removeprefix(option), error.hint) from error


def where(session: "Session") -> str:
    """What is looked at, in words."""
    field, box = session.field, session.field.box
    frame = f", frame {field.frame} of 0 to {session.source.frames - 1}" if session.source.frames > 1 else ""
    return f"looking at: {field.role}{frame}, {box.width} x {box.height} px from ({box.x}, {box.y})"


def _region(session: "Session", rest: str) -> str:
    session.look_at_box(region_box(session.source, rest))
    return where(session)


def _zoom(session: "Session", rest: str) -> str:
    try:
        factor = float(rest)
    except ValueError:
        factor = 0.0
    if not 0 < factor < float("inf"):
        raise UsageError(f"/zoom {rest}: this is not a factor", "give how many times closer to look: /zoom 2")
    session.look_closer(factor)
    return where(session)


def _frame(session: "Session", rest: str) -> str:
    if not rest.isdecimal():
        raise UsageError(f"/frame {rest}: this is not a number", "frames count from 0: /frame 3")
    session.look_at_frame(int(rest))
    return where(session)


def _window(session: "Session", rest: str) -> str:
    session.open_with_window(rest)
    return where(session)


def _reset(session: "Session", rest: str) -> str:
    session.reset()
    return f"the conversation starts again; {where(session)}"


def _save(session: "Session", rest: str) -> str:
    try:
        session.save(expanded(rest))
    except (OSError, ValueError):  # it is too long, say
        raise OutputError(f"cannot write {rest}: this is no name of a file", "give another name") from None
    count = len(session.records)
    return f"saved in {rest}: {count} answer{'s' * (count > 1)}"


def _help(session: "Session", rest: str) -> str:
    width = max(len(command.usage) for command in COMMANDS.values())
    lines = [f"{command.usage:<{width}}  {command.does}" for command in COMMANDS.values()]
    return "\n".join(
        [*lines, "Ctrl-C stops an answer. What you type is remembered until you leave, and in no file but by /save."]
    )


def _quit(session: "Session", rest: str) -> str:
    raise Quit


COMMANDS = {
    "/region": Command("/region X,Y,W,H", "look at a part of the image: level-0 pixels, or 500um, 25%", _region),
    "/zoom": Command("/zoom FACTOR", "look closer at the middle; below 1, from farther away", _zoom),
    "/frame": Command("/frame N", "look at another frame, counted from 0", _frame),
    "/window": Command("/window NAME", "DICOM: another grey level window, lung, say, or WIDTH,LEVEL", _window),
    "/reset": Command("/reset", "start again, where it began; answers that were not saved are gone", _reset),
    "/save": Command("/save FILE", "write the records of all answers as JSON", _save),
    "/help": Command("/help", "show this", _help),
    "/quit": Command("/quit", "leave; Ctrl-D does the same", _quit),
}
