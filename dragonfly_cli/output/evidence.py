"""``--geojson`` and ``--overlay``: files that show where the model looked, refused early, written whole."""

from pathlib import Path
from typing import Any

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import LookPlan
from dragonfly_cli.options import EvidenceOptions, LookOptions
from dragonfly_cli.output.files import check_writable, write_text, write_whole
from dragonfly_cli.output.terminal import say
from dragonfly_cli.readers import Source


def check_evidence(evidence: EvidenceOptions, output: Path | None) -> None:
    """Raises OutputError or UsageError for files that cannot be written, before any work is done."""
    paths = [path for path in (output, evidence.geojson, evidence.overlay) if path is not None]
    for path in paths:
        check_writable(path)
    if len({path.absolute() for path in paths}) < len(paths):
        raise UsageError("two outputs have the same name", "give --output, --geojson and --overlay names of their own")


def write_evidence(
    evidence: EvidenceOptions, looking: LookOptions, source: Source, plan: LookPlan, records: list[dict[str, Any]]
) -> None:
    """Writes what was asked for about the answers to one image."""
    if evidence.geojson:
        x, y = write_geojson(evidence.geojson, source, looking, records)
        if (x, y) != (0, 0):
            say(f"note: {evidence.geojson} counts from ({x}, {y}), as QuPath does on this slide")
    if evidence.overlay:
        write_overlay(evidence.overlay, source, plan, records)


def write_geojson(path: Path, source: Source, looking: LookOptions, records: list[dict[str, Any]]) -> tuple[int, int]:
    """Returns where its coordinates begin, in level-0 pixels."""
    from dragonfly_cli.fields.slide_plan import bounds_origin
    from dragonfly_cli.output.geojson import as_geojson

    offset_xy = bounds_origin(source, looking)
    write_text(path, as_geojson(records, offset_xy))
    return offset_xy


def write_overlay(path: Path, source: Source, plan: LookPlan, records: list[dict[str, Any]]) -> None:
    """Raises InputError for what only the overlay shows and cannot be read."""
    from dragonfly_cli.output.overlay import overlay_picture

    picture = overlay_picture(source, records, plan.tissue.mask if plan.tissue and plan.tissue.found else None)
    write_whole(path, lambda part: picture.save(part, format="PNG"))
