"""Where the model looked as GeoJSON that QuPath opens: fields as annotations, the crops it zoomed in on as detections.

Coordinates are level-0 pixels, less the corner of the slide's scanned part where QuPath counts from it; the file says
how much that is. Source: RFC 7946; QuPath's GeoJSON (``objectType``, ``classification``, ``measurements``).
"""

import json
import uuid
from collections.abc import Iterator
from typing import Any

from dragonfly_cli.output.notices import NOTICE
from dragonfly_cli.output.votes import Colour, colour, support, verdict

_CROP_COLOUR: Colour = (230, 170, 0)
_NAMES = uuid.UUID("6d1f1b6e-6d0c-5e0b-9d3c-2f1f6f0a4d10")  # ids are the same each time the same is asked


def as_geojson(records: list[dict[str, Any]], offset_xy: tuple[int, int]) -> str:
    """The fields of all answers about one image; ``offset_xy`` is taken off every coordinate."""
    features = [feature for record in records for feature in _features(record, len(records) > 1, offset_xy)]
    about = {
        "image": records[0]["image"],
        "questions": [record["question"] for record in records],
        "answers": [record["answer"] for record in records],
        "model": records[0]["model"]["id"],
        "offset": {"x": offset_xy[0], "y": offset_xy[1]},
        "notice": NOTICE,
    }
    return (
        json.dumps({"type": "FeatureCollection", "features": features, "dragonfly": about}, ensure_ascii=False) + "\n"
    )


def _features(record: dict[str, Any], says_question: bool, offset_xy: tuple[int, int]) -> Iterator[dict[str, Any]]:
    asked = record["question"] or "caption"
    for field in record["fields"]:
        label = f"{asked}: {field['answer']}" if says_question else field["answer"]
        measurements = {f"p_{option}": value for option, value in (field["probabilities"] or {}).items()}
        if field["mpp"] is not None:
            measurements["mpp"] = field["mpp"]
        measurements["support"] = support(record, field)
        name = f"{field['role']} {field['id']}: {verdict(record, field)}"
        yield _feature(
            (asked, name), field["box"], offset_xy, "annotation", name, label, colour(record, field), measurements
        )
        for number, box in enumerate(field["selected"]):
            crop = f"crop {number} of field {field['id']}"
            yield _feature((asked, crop), box, offset_xy, "detection", crop, "zoomed in on", _CROP_COLOUR, {})


def _feature(
    key: tuple[str, str],
    box: dict[str, int],
    offset_xy: tuple[int, int],
    kind: str,
    name: str,
    label: str,
    rgb: Colour,
    measurements: dict[str, float],
) -> dict[str, Any]:
    left, top = box["x"] - offset_xy[0], box["y"] - offset_xy[1]
    right, bottom = left + box["width"], top + box["height"]
    ring = [[left, top], [right, top], [right, bottom], [left, bottom], [left, top]]
    return {
        "type": "Feature",
        "id": str(uuid.uuid5(_NAMES, "\n".join([*key, json.dumps(box)]))),
        "geometry": {"type": "Polygon", "coordinates": [ring]},
        "properties": {
            "objectType": kind,
            "name": name,
            "classification": {"name": label, "color": list(rgb)},
            "isLocked": True,
            "measurements": measurements,
        },
    }
