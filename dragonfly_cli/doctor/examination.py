"""All checks in the order of the report, and the report as text or JSON."""

from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict

from dragonfly_cli.doctor import hardware, self_test, software, storage
from dragonfly_cli.doctor.finding import DoctorSettings, Finding, Status, problem
from dragonfly_cli.output.json_text import json_text

SCHEMA_VERSION = 1

CHECKS: tuple[Callable[[DoctorSettings], Iterator[Finding]], ...] = (
    software.python,
    software.libraries,
    hardware.gpu,
    hardware.four_bit,
    hardware.attention,
    software.decoders,
    software.imaging,
    software.openslide,
    storage.disk,
    storage.cache,
    storage.models,
    self_test.blindness,
)


def examine(settings: DoctorSettings) -> Iterator[Finding]:
    """Yields every finding as soon as it is known."""
    for check in CHECKS:
        try:
            yield from check(settings)
        except Exception as error:  # whatever a broken library or driver raises is what the doctor was asked about
            why = " ".join(str(error).split()) or type(error).__name__
            name = check.__name__.replace("_", " ")
            yield problem(name, f"cannot be checked: {why}", "install again the library that is missing or broken")


def as_line(finding: Finding) -> str:
    """``ok  name: detail``, and the remedy on a line of its own; what a library says may be many lines."""
    remedy = f"\n{'':9}{finding.remedy}" if finding.remedy else ""
    return f"{finding.status:<9}{finding.name}: {' '.join(finding.detail.split())}{remedy}\n"


def as_summary(findings: Iterable[Finding]) -> str:
    """How many checks went well, and the names of the others: they are easily overlooked among so many lines."""
    names: dict[Status, list[str]] = {status: [] for status in Status}
    for finding in findings:
        names[finding.status].append(finding.name)
    others = "; ".join(
        f"{status}{'s' * (len(names[status]) > 1)}: {', '.join(names[status])}"
        for status in (Status.warning, Status.problem)
        if names[status]
    )
    return f"ok: {len(names[Status.ok])} of {sum(map(len, names.values()))} checks{'; ' * bool(others)}{others}"


def as_report(findings: Iterable[Finding]) -> str:
    listed = list(findings)
    report = {"schema_version": SCHEMA_VERSION, "status": worst(listed), "checks": [asdict(each) for each in listed]}
    return json_text(report)


def worst(findings: Iterable[Finding]) -> Status:
    found = {finding.status for finding in findings}
    return next((status for status in (Status.problem, Status.warning) if status in found), Status.ok)
