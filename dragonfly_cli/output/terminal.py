"""What a terminal user reads: results on stdout, everything else on stderr.

Text may come from a model or a file name, so control characters are made harmless before they reach a terminal.
"""

from typing import TYPE_CHECKING, Any

from dragonfly_cli.engine.questions import doubts_about
from dragonfly_cli.output.control_characters import harmless
from dragonfly_cli.output.files import storable
from dragonfly_cli.output.notices import DEMO_WARNING, NOTICE
from dragonfly_cli.output.streams import tell, write_result
from dragonfly_cli.output.votes import p_of_answer, told_mpp, verdict

if TYPE_CHECKING:  # the store, which checkpoints are found in, speaks through this module
    from dragonfly_cli.engine.checkpoints import Checkpoint


def say(message: str) -> None:
    """One line on stderr, even if a file name in it has a line break."""
    tell(storable(harmless(message.replace("\n", " "))))


def say_notices(checkpoint: "Checkpoint") -> None:
    """What a user must know before reading an answer."""
    say(f"note: {NOTICE}")
    if checkpoint.is_demo:
        say(f"note: {DEMO_WARNING}")


def say_warnings(record: dict[str, Any], said: set[str], *, shown: bool) -> None:
    """The warnings of a record that were not ``said`` before; a ``shown`` answer had its doubts printed beside it."""
    doubts = doubts_about(record["settings"]["type"], record["option_mass"]) if shown else []
    for warning in record["warnings"]:
        if warning not in said and warning not in doubts:
            say(f"warning: {warning}")


def show(piece: str) -> None:
    """A piece of a result on stdout, at once."""
    write_result(storable(harmless(piece)))


def where_it_looked(record: dict[str, Any]) -> list[str]:
    """A line per field: its box, its scale, of several its own answer, and the boxes zoomed in on; level-0 pixels."""
    lines = []
    for field in record["fields"]:
        box = field["box"]
        role = field["role"] if field["second_look_of"] is None else "second look"
        answer = f": {verdict(field)}" if len(record["fields"]) > 1 else ""
        lines.append(
            f"looked at: {role}, frame {field['frame']}, {box['width']} x {box['height']} px "
            f"from ({box['x']}, {box['y']}){_scale(field['mpp'])}{answer}"
        )
        if field["selected"]:
            boxes = "; ".join(f"{b['x']},{b['y']},{b['width']},{b['height']}" for b in field["selected"])
            lines.append(f"zoomed in on: {boxes}")
    return lines


def without_the_picture(record: dict[str, Any]) -> list[str]:
    """A line about what ``--control`` was answered, where it was asked for."""
    control = record["control"]
    if control is None:
        return []
    sure = f" ({p_of_answer(control['probabilities'])})" if control["probabilities"] else ""
    return [f"control {control['kind']}: {control['answer']}{sure}, {control['distance']:.2f} apart"]


def _scale(mpp: float | None) -> str:
    if mpp is None:
        return ""
    return f" at {told_mpp(mpp)} microns per pixel"


def info_text(facts: dict[str, Any]) -> str:
    """Aligned ``name  value`` lines; nested facts are indented."""
    return "\n".join(_fact_lines(facts, "")) + "\n"


def _fact_lines(facts: dict[str, Any], indent: str) -> list[str]:
    width = max(map(len, facts), default=0)
    lines: list[str] = []
    for name, value in facts.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}", *_fact_lines(value, indent + "  ")]
        elif isinstance(value, list) and value and isinstance(value[0], dict):
            lines += [f"{indent}{name}", *(f"{indent}  {_inline(item)}" for item in value)]
        else:
            lines.append(f"{indent}{name:<{width}}  {_plain(value)}")
    return lines


def _inline(facts: dict[str, Any]) -> str:
    return ", ".join(f"{name} {_plain(value)}" for name, value in facts.items())


def _plain(value: Any) -> str:
    if value is None:
        return "unknown"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, list | tuple):
        return ", ".join(map(_plain, value)) or "none"
    return f"{value:.6g}" if isinstance(value, float) else " ".join(str(value).splitlines())
