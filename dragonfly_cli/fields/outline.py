"""Outlines drawn in QuPath and exported as GeoJSON: the areas of a slide that are to be looked at.

Polygons and multipolygons, with holes; lines and points have no area and are left out. Coordinates are level-0
pixels; QuPath counts them from the scanned part of a slide where the file tells it (``openslide.bounds-x``/``-y``).
Source: RFC 7946; QuPath's export (its ``properties.classification.name``).
"""

import json
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import shapely
from shapely.affinity import translate
from shapely.geometry import shape

from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.fields.grid import Area
from dragonfly_cli.geometry import Box

_HINT = "export the annotations from QuPath as GeoJSON"


_LEAST_TISSUE = 0.05  # of an outline: with less in it, what was outlined is not what is taken for tissue elsewhere


@dataclass(frozen=True)
class Outlined:
    """The part of ``tissue`` within an outline; of an outline without tissue, all of it."""

    tissue: Area
    outline: shapely.Geometry

    @property
    def bounds(self) -> Box:
        return bounds_of(self.outline)

    @property
    def pieces(self) -> list[Box]:
        if not self._has_tissue:
            return []
        return [piece for piece in self.tissue.pieces if self.outline.intersects(shapely.box(*piece.corners))]

    def share(self, box: Box) -> float:
        """How much of the box is outlined tissue, or, where that is more, how much of one outline the box shows.

        So none of several outlines is too small to be looked at.
        """
        window = shapely.box(*box.corners)
        drawn = self._parts.geometries[self._parts.query(window)]
        pieces = shapely.intersection(drawn, window)
        areas = shapely.area(pieces)
        if not areas.any():
            return 0.0
        shown = max(areas.sum() / window.area, (areas / shapely.area(drawn)).max())
        return float(shown * self.tissue.share(bounds_of(shapely.union_all(pieces))) if self._has_tissue else shown)

    @cached_property
    def _parts(self) -> shapely.STRtree:
        parts = shapely.get_parts(self.outline)
        return shapely.STRtree(parts[shapely.area(parts) > 0])

    @cached_property
    def _has_tissue(self) -> bool:
        filled = self.outline.area / shapely.box(*self.bounds.corners).area
        return self.tissue.share(self.bounds) >= _LEAST_TISSUE * filled


def bounds_of(outline: shapely.Geometry) -> Box:
    """The smallest box of whole pixels around an outline."""
    left, top, right, bottom = outline.bounds
    x, y = math.floor(left), math.floor(top)
    return Box(x, y, max(1, math.ceil(right) - x), max(1, math.ceil(bottom) - y))


def read_outline(path: Path, classes: Sequence[str], offset_xy: tuple[int, int]) -> shapely.Geometry:
    """All areas of the file (of the named classes, if any are named) as one, in level-0 pixels.

    Raises NoInputError, InputError for what is no GeoJSON, UsageError where nothing is left.
    """
    features = list(_features(path, _load(path)))
    wanted = [each for each in features if not classes or _class_of(each) in {name.lower() for name in classes}]
    areas = [area for each in wanted if (area := _area(path, each))]
    if not areas:
        named = f" of class {', '.join(classes)}" if classes else ""
        known = sorted({name for each in features if (name := _class_of(each))})
        raise UsageError(
            f"--roi {path}: there is no polygon{named} in it",
            f"its classes are: {', '.join(known)}" if classes and known else _HINT,
        )
    return translate(shapely.union_all(areas), *offset_xy)


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise NoInputError(f"no such file: {path}", "check the path given to --roi") from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"cannot read {path}: it is not JSON", _HINT) from None


def _features(path: Path, data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, list):
        for each in data:
            yield from _features(path, each)
    elif isinstance(data, dict) and data.get("type") == "FeatureCollection":
        yield from _features(path, data.get("features") or [])
    elif isinstance(data, dict) and data.get("type") == "Feature":
        yield data
    elif isinstance(data, dict) and "coordinates" in data:
        yield {"geometry": data, "properties": {}}
    else:
        raise InputError(f"cannot read {path}: it is not GeoJSON", _HINT)


def _class_of(feature: dict[str, Any]) -> str:
    known = (feature.get("properties") or {}).get("classification") or {}
    name = known.get("name") if isinstance(known, dict) else known
    return str(name or "").lower()


def _area(path: Path, feature: dict[str, Any]) -> shapely.Geometry | None:
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or geometry.get("type") not in ("Polygon", "MultiPolygon"):
        return None
    try:
        area = shapely.make_valid(shape(geometry))
        if not all(abs(edge) < 1e9 for edge in area.bounds):  # also false for NaN
            raise ValueError
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, shapely.errors.ShapelyError):
        raise InputError(f"cannot read {path}: the coordinates of a polygon are damaged", _HINT) from None
    return area if area.area > 0 else None
