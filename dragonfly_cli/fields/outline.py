"""Outlines drawn in QuPath and exported as GeoJSON: the areas of a slide that are to be looked at.

Polygons, multipolygons and collections of them, with holes; lines and points have no area and are left out.
Coordinates are level-0 pixels; QuPath counts them from the scanned part of a slide where the file tells it
(``openslide.bounds-x``/``-y``), and a file of this program says where it counts from.
Source: RFC 7946; QuPath's export (``properties.classification``: a ``name``, or the ``names`` of a class in a class).
"""

import json
import math
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import shapely
from shapely.affinity import translate
from shapely.geometry import shape

from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.fields.tissue import Tissue
from dragonfly_cli.geometry import Box

_HINT = "export the annotations from QuPath as GeoJSON"
_WITH_AREA = ("Polygon", "MultiPolygon", "GeometryCollection")
_LEAST_TISSUE = 0.05  # of an outline: with less in it, what was outlined is not what is taken for tissue elsewhere


@dataclass(frozen=True)
class Outlined:
    """The part of ``tissue`` within an outline; of an outline without tissue, all of it."""

    tissue: Tissue
    outline: shapely.Geometry

    @property
    def bounds(self) -> Box:
        return bounds_of(self.outline)

    @property
    def pieces(self) -> list[Box]:
        """Boxes around the pieces of tissue that it meets and, where there are several, around each outline."""
        parts = self._parts.geometries
        drawn = [bounds_of(part) for part in parts] if len(parts) > 1 else []
        if not self.has_tissue:
            return drawn
        return [*drawn, *(box for box in self.tissue.pieces if self.outline.intersects(shapely.box(*box.corners)))]

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
        return float(shown * self.tissue.share(_box_of(*shapely.total_bounds(pieces))) if self.has_tissue else shown)

    @cached_property
    def _parts(self) -> shapely.STRtree:
        parts = shapely.get_parts(self.outline)
        return shapely.STRtree(parts[shapely.area(parts) > 0])

    @property
    def has_tissue(self) -> bool:
        return self.tissue_share >= _LEAST_TISSUE

    @cached_property
    def tissue_share(self) -> float:
        """How much of the outline is tissue, 0 to 1, by the middles of the tissue mask's pixels."""
        width, height = self.tissue.pixel_wh
        left, top, right, bottom = self.bounds.corners
        mask = self.tissue.mask
        columns = np.arange(int(left / width), min(math.ceil(right / width), mask.shape[1]))
        rows = np.arange(int(top / height), min(math.ceil(bottom / height), mask.shape[0]))
        shapely.prepare(self.outline)
        inside = shapely.contains_xy(self.outline, (columns + 0.5) * width, (rows[:, None] + 0.5) * height)
        if not inside.any():  # it is smaller than one of them
            return self.tissue.share(self.bounds)
        return float(mask[rows[:, None], columns][inside].mean())


def areas_of(drawn: shapely.Geometry) -> shapely.Geometry:
    """The polygons of a valid geometry, without the lines and points that stand beside them."""
    return drawn.buffer(0) if drawn.geom_type == "GeometryCollection" else drawn


def bounds_of(outline: shapely.Geometry) -> Box:
    """The smallest box of whole pixels around an outline."""
    return _box_of(*outline.bounds)


def _box_of(left: float, top: float, right: float, bottom: float) -> Box:
    x, y = math.floor(left), math.floor(top)
    return Box(x, y, max(1, math.ceil(right) - x), max(1, math.ceil(bottom) - y))


def read_outline(path: Path, classes: Sequence[str], offset_xy: tuple[int, int]) -> tuple[shapely.Geometry, int]:
    """All areas of the file (of the named classes, if any are named) as one, in level-0 pixels; and the shapes without.

    Raises NoInputError, InputError for what is no GeoJSON, UsageError where nothing is left, also of one class.
    """
    data = _load(path)
    features = list(_features(path, data))
    areas: list[shapely.Geometry] = []
    without = 0
    for name in classes or (None,):
        wanted = [each for each in features if name is None or _is_of(each, name)]
        found = [area for each in wanted if (area := _area(path, each))]
        if not found:
            known = sorted({of for each in features if (of := _class_of(each))})
            raise UsageError(
                f"--roi {path}: there is no polygon{f' of class {name}' if name else ''} in it",
                f"its classes are: {', '.join(known)}" if name and known else _HINT,
            )
        areas += found
        without += len(wanted) - len(found)
    return translate(shapely.union_all(areas), *(_stated_offset(data) or offset_xy)), without


def _stated_offset(data: Any) -> tuple[float, float] | None:
    """Where a file that this program has written counts its pixels from, whatever it was told when it wrote it."""
    try:
        x, y = data["dragonfly"]["offset"]["x"], data["dragonfly"]["offset"]["y"]
        return float(x), float(y)
    except (KeyError, TypeError, ValueError, IndexError):
        return None


def _load(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise NoInputError(f"no such file: {path}", "check the path given to --roi") from None
    except OSError as error:
        why = (error.strerror or "the disk refused").lower()
        raise InputError(f"cannot read {path}: {why}", "check the path given to --roi") from None
    except (ValueError, RecursionError):
        raise InputError(f"cannot read {path}: it is not JSON", _HINT) from None


def _features(path: Path, data: Any) -> Iterator[dict[str, Any]]:
    if isinstance(data, list):
        for each in data:
            yield from _features(path, each)
    elif isinstance(data, dict) and data.get("type") == "FeatureCollection":
        yield from _features(path, data.get("features") or [])
    elif isinstance(data, dict) and data.get("type") == "Feature":
        yield data
    elif isinstance(data, dict) and ("coordinates" in data or "geometries" in data):
        yield {"geometry": data, "properties": {}}
    else:
        raise InputError(f"cannot read {path}: it is not GeoJSON", _HINT)


def _is_of(feature: dict[str, Any], name: str) -> bool:
    """Whether a feature is of a class, or of one in it, as ``Tumor: Positive`` is in ``Tumor``."""
    own, wanted = _comparable(_class_of(feature)), _comparable(name)
    return own == wanted or own.startswith(f"{wanted}:")


def _comparable(name: str) -> str:
    """A name whose accents may be letters of their own or not, as keyboards and programs differ in this."""
    return unicodedata.normalize("NFC", name).casefold()


def _class_of(feature: dict[str, Any]) -> str:
    properties = feature.get("properties")
    known = properties.get("classification") if isinstance(properties, dict) else None
    names = known.get("names", known.get("name")) if isinstance(known, dict) else known
    return ": ".join(map(str, names)) if isinstance(names, list) else str(names or "")


def _area(path: Path, feature: dict[str, Any]) -> shapely.Geometry | None:
    geometry = feature.get("geometry")
    if not isinstance(geometry, dict) or geometry.get("type") not in _WITH_AREA:
        return None
    try:
        drawn = shapely.make_valid(shape(geometry))
        if drawn.is_empty:  # as good as no geometry, RFC 7946 3.1
            return None
        if not all(abs(edge) < 1e9 for edge in drawn.bounds):  # also false for NaN
            raise ValueError
        area = areas_of(drawn)
    except (ValueError, TypeError, IndexError, KeyError, AttributeError, shapely.errors.ShapelyError):
        raise InputError(f"cannot read {path}: the coordinates of a polygon are damaged", _HINT) from None
    return area if area.area > 0 else None
