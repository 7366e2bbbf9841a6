"""``--geojson`` and ``--overlay``: files that show where the model looked, refused early, written whole."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragonfly_cli.errors import UsageError
from dragonfly_cli.fields import LookPlan
from dragonfly_cli.geometry import ViewerPixels
from dragonfly_cli.options import EvidenceOptions, LookOptions
from dragonfly_cli.output.files import check_png, check_writable, write_text, write_whole
from dragonfly_cli.output.terminal import say
from dragonfly_cli.readers import Source

if TYPE_CHECKING:
    from PIL.Image import Image


def check_evidence(evidence: EvidenceOptions, output: Path | None) -> None:
    """Raises OutputError or UsageError for files that cannot be written, before any work is done."""
    paths = [path for path in (output, evidence.geojson, evidence.overlay) if path is not None]
    for path in paths:
        check_writable(path)
    if evidence.overlay:
        check_png(evidence.overlay)
    if len({path.absolute() for path in paths}) < len(paths):
        raise UsageError("two outputs have the same name", "give --output, --geojson and --overlay names of their own")


def write_evidence(
    evidence: EvidenceOptions, looking: LookOptions, source: Source, plan: LookPlan, records: list[dict[str, Any]]
) -> None:
    """Writes what was asked for about the answers to one image."""
    if evidence.geojson:
        text, viewer = drawn_geojson(source, looking, records)
        if viewer.origin_xy != (0, 0):
            say(f"note: {evidence.geojson} counts from {viewer.origin_xy}, as QuPath does on this slide")
        if viewer.is_stretched:
            say(f"note: {evidence.geojson} counts pixels as they are stored, not the square ones that are shown")
        write_text(evidence.geojson, text)
    if evidence.overlay:
        picture = drawn_overlay(source, plan, records)
        write_whole(evidence.overlay, lambda part: picture.save(part, format="PNG"))


def drawn_geojson(source: Source, looking: LookOptions, records: list[dict[str, Any]]) -> tuple[str, ViewerPixels]:
    """The text, and the pixels that its coordinates are in."""
    from dragonfly_cli.fields.named import viewer_pixels
    from dragonfly_cli.output.geojson import as_geojson

    viewer = viewer_pixels(source, looking)
    return as_geojson(records, viewer), viewer


def drawn_overlay(source: Source, plan: LookPlan, records: list[dict[str, Any]]) -> "Image":
    """Raises InputError for what only the overlay shows and cannot be read."""
    from dragonfly_cli.output.overlay import overlay_picture

    return overlay_picture(source, records, plan.tissue.mask if plan.tissue and plan.tissue.found else None)
