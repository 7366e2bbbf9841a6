"""What a check has to say. This module imports nothing heavy, so that every check may import it."""

from dataclasses import dataclass
from enum import StrEnum

from dragonfly_cli.option_values import Attention, Quant


class Status(StrEnum):
    """``warning``: something cannot be done here. ``problem``: answering fails, or its answers cannot be trusted."""

    ok = "ok"
    warning = "warning"
    problem = "problem"


@dataclass(frozen=True)
class Finding:
    """One line of the report; ``remedy`` says what to do, and is ``None`` when there is nothing to do."""

    name: str
    status: Status
    detail: str
    remedy: str | None = None


@dataclass(frozen=True)
class DoctorSettings:
    """Which model the self-test loads, and how: the options of the same names."""

    model: str = "auto"
    device: str = "auto"
    quant: Quant = Quant.auto
    attn: Attention = Attention.auto


def ok(name: str, detail: str) -> Finding:
    return Finding(name, Status.ok, detail)


def warning(name: str, detail: str, remedy: str) -> Finding:
    return Finding(name, Status.warning, detail, remedy)


def problem(name: str, detail: str, remedy: str) -> Finding:
    return Finding(name, Status.problem, detail, remedy)
