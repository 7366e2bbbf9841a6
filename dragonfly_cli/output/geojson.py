"""Where the model looked as GeoJSON that QuPath opens: fields as annotations, the crops it zoomed in on as detections.

Coordinates are pixels as QuPath counts them: of level 0, from the corner of the slide's scanned part where it counts
from there, and as they are stored where those are not square; the file says so. Of an image with several frames, names
and measurements say which.
Source: RFC 7946; QuPath's GeoJSON (``objectType``, ``classification``, ``measurements``).
"""

import json
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Literal

from dragonfly_cli.geometry import ViewerPixels
from dragonfly_cli.output.notices import NOTICE
from dragonfly_cli.output.votes import Colour, colour, has_frames, name_of, support, verdict

_CROP_COLOUR: Colour = (230, 170, 0)
_NAMES = uuid.UUID("6d1f1b6e-6d0c-5e0b-9d3c-2f1f6f0a4d10")  # ids are the same each time the same is asked


def as_geojson(records: list[dict[str, Any]], viewer: ViewerPixels) -> str:
    """The fields of all answers about one image, in the viewer's pixels."""
    features = [feature for record in records for feature in _features(record, len(records) > 1, viewer)]
    about = {
        "image": records[0]["image"],
        "questions": [record["question"] for record in records],
        "answers": [record["answer"] for record in records],
        "model": records[0]["model"]["id"],
        "offset": dict(zip("xy", viewer.origin_xy, strict=True)),
        **({"scale": dict(zip("xy", viewer.scale_xy, strict=True))} if viewer.is_stretched else {}),
        "notice": NOTICE,
    }
    return (
        json.dumps({"type": "FeatureCollection", "features": features, "dragonfly": about}, ensure_ascii=False) + "\n"
    )


@dataclass(frozen=True)
class _Mark:
    """What QuPath shows of a box."""

    kind: Literal["annotation", "detection"]
    name: str
    label: str
    colour: Colour
    measurements: dict[str, float]


def _features(record: dict[str, Any], says_question: bool, viewer: ViewerPixels) -> Iterator[dict[str, Any]]:
    asked = record["question"] or "caption"
    for field in record["fields"]:
        yield _feature(asked, field["box"], viewer, _field_mark(record, field, asked if says_question else None))
        for number, box in enumerate(field["selected"]):
            crop = _Mark("detection", f"crop {number} of {name_of(record, field)}", "zoomed in on", _CROP_COLOUR, {})
            yield _feature(asked, box, viewer, crop)


def _field_mark(record: dict[str, Any], field: dict[str, Any], question: str | None) -> _Mark:
    measurements = {f"p_{option}": value for option, value in (field["probabilities"] or {}).items()}
    if field["mpp"] is not None:
        measurements["mpp"] = field["mpp"]
    if has_frames(record):
        measurements["frame"] = field["frame"]
    measurements["support"] = support(record, field)
    label = f"{question}: {field['answer']}" if question else field["answer"]
    name = f"{name_of(record, field)}: {verdict(field)}"
    return _Mark("annotation", _one_line(name), _one_line(label), colour(record, field), measurements)


def _one_line(text: str) -> str:
    """As the name of an object or a class is, whatever a free answer looks like."""
    return " ".join(text.split())


def _feature(asked: str, box: dict[str, int], viewer: ViewerPixels, mark: _Mark) -> dict[str, Any]:
    left, top = viewer.of(box["x"], box["y"])
    right, bottom = viewer.of(box["x"] + box["width"], box["y"] + box["height"])
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMES, "\n".join([asked, mark.name, json.dumps(box)]))),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": mark.kind,
            "name": mark.name,
            "classification": {"name": mark.label, "color": list(mark.colour)},
            "isLocked": True,
            "measurements": mark.measurements,
        },
    }
