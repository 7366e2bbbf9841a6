"""Generated tissue that looks as after haematoxylin and eosin: any size, any microns per pixel, from a seed.

    image = draw_tissue((1024, 768), 0.5, seed=3, foci=[Focus("necrosis", (300, 200), 120)])
    image = draw_patch("tumour", (224, 224), 0.5, np.random.default_rng(3))

No pixel comes from a real picture, and nothing here is a finding. What is drawn is two optical densities: how much
haematoxylin (blue: nuclei) and how much eosin (pink: everything else) the light crosses; `Stain` turns them into colour
by the law of Beer and Lambert. All lengths are in microns, so that tissue can be drawn at every magnification: nuclei
that are smaller than a pixel become the mean density that they would leave in it.

The kinds: "benign" (round glands around a lumen in fibrous stroma), "tumour" (crowded, dark, uneven nuclei, glands back
to back or sieve-like), "necrosis" (pale smudges, ghosts of cells, nuclear dust), "stroma" (no glands), "glass".
Needs numpy and Pillow only.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from PIL import Image, ImageFilter

KINDS = ("benign", "tumour", "necrosis", "stroma", "glass")
GLANDULAR_KINDS = ("benign", "tumour", "necrosis")
SMALLEST_STAMP_PX = 0.6  # nuclei with a smaller radius are not drawn one by one
DARKEST = 1.3
GLAND_GRID_UM = 2
STAMPS_AT_ONCE = 200
Plane = np.ndarray  # [height, width] float32


@dataclass(frozen=True)
class Focus:
    """A round spot of another kind of tissue with a ragged edge; microns from the upper left corner of the field."""

    kind: str
    centre_um: tuple[float, float]
    radius_um: float


@dataclass(frozen=True)
class Stain:
    """How one laboratory's slides look: optical density per unit of either dye, [red, green, blue], and the light."""

    haematoxylin: np.ndarray
    eosin: np.ndarray
    light: np.ndarray
    blur_um: float

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Stain":
        haematoxylin = np.array([rng.uniform(0.85, 1.10), rng.uniform(0.85, 1.05), rng.uniform(0.30, 0.60)])
        eosin = np.array([rng.uniform(0.05, 0.22), rng.uniform(0.80, 1.00), rng.uniform(0.30, 0.62)])
        light = rng.uniform(0.86, 0.985) * (1 + rng.uniform(-0.025, 0.025, 3))
        strengths = rng.uniform(0.70, 1.45, 2)
        return cls(haematoxylin * strengths[0], eosin * strengths[1], light.clip(0, 1), rng.uniform(0.15, 0.8))


@dataclass(frozen=True)
class Organ:
    """The build that benign tissue, tumour and necrosis of one field share; microns."""

    gland_spacing_um: float
    gland_share: float  # of the places of the lattice, how many hold a gland
    epithelium_um: float
    nucleus_um: float  # radius of a benign epithelial nucleus
    fibre_turn: float  # radians
    waviness_um: float
    lymphocytes: float  # 0 to 1
    nests: float  # how far the tumour's glands are from solid sheets, 0 to 1

    @classmethod
    def random(cls, rng: np.random.Generator) -> "Organ":
        return cls(
            gland_spacing_um=rng.uniform(85, 150),
            gland_share=rng.uniform(0.55, 0.95),
            epithelium_um=rng.uniform(14, 24),
            nucleus_um=rng.uniform(2.8, 3.8),
            fibre_turn=rng.uniform(0, np.pi),
            waviness_um=rng.uniform(15, 70),
            lymphocytes=rng.uniform(0, 1) ** 2,
            nests=rng.uniform(0, 1),
        )


@dataclass(frozen=True)
class Nuclei:
    """One population of nuclei: where (share of the places taken, [height, width]) and of what shape; microns."""

    share: Plane
    spacing_um: float
    radius_um: float
    darkness: float
    spread: float = 0.12  # of radius and darkness, as a share of them
    length: float = 1.3  # long axis beside the short one
    turn: Plane | None = None  # radians of the long axis; None: any
    rim: float = 0.3  # how much darker the edge is than the middle


@dataclass
class Layer:
    """What one kind of tissue consists of: densities of the dyes and the nuclei in them."""

    haematoxylin: Plane
    eosin: Plane
    nuclei: list[Nuclei]


@dataclass(frozen=True)
class Canvas:
    """The grid that one field is drawn on."""

    size_wh: tuple[int, int]
    microns_per_pixel: float
    rng: np.random.Generator

    @property
    def shape_hw(self) -> tuple[int, int]:
        return self.size_wh[1], self.size_wh[0]

    def places_um(self) -> tuple[Plane, Plane]:
        """x as a row and y as a column, microns at the pixels' centres."""
        width, height = self.size_wh
        x, y = (np.arange(0.5, count, dtype=np.float32) * self.microns_per_pixel for count in (width, height))
        return x[None, :], y[:, None]

    def noise(self, grain_um: float) -> Plane:
        """Soft noise from about 0 to 1 in blobs as wide as ``grain_um``; where they are below a pixel it fades."""
        width, height = self.size_wh
        grain_px = grain_um / self.microns_per_pixel
        if grain_px <= 1:
            return 0.5 + grain_px * (self.rng.random(self.shape_hw, np.float32) - 0.5)
        coarse = self.rng.random((int(height / grain_px) + 3, int(width / grain_px) + 3), np.float32)
        x, y = self.rng.random(2)
        box = (x, y, x + width / grain_px, y + height / grain_px)
        return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC, box=box))

    def streaks(self, across_um: Plane, along_um: Plane, wide_um: float, long_um: float) -> Plane:
        """Noise drawn out along one coordinate, as fibres are: ``wide_um`` across, ``long_um`` along."""
        places = [(axis - axis.min()) / self.microns_per_pixel for axis in (across_um, along_um)]
        row, column = (place.astype(np.int32) for place in places)
        high, wide = int(row.max()) + 1, int(column.max()) + 1
        squeezed = Canvas((int(wide * wide_um / long_um) + 2, high), self.microns_per_pixel, self.rng).noise(wide_um)
        return np.asarray(Image.fromarray(squeezed).resize((wide, high), Image.Resampling.BILINEAR))[row, column]

    def step(self, distance_um: Plane, soft_um: float = 0.7) -> Plane:
        """0 where the distance is negative, 1 where it is positive, soft over a pixel or ``soft_um``."""
        return (distance_um / max(2 * soft_um, self.microns_per_pixel) + 0.5).clip(0, 1)


@dataclass(frozen=True)
class Lattice:
    """The glands of a field: one oval for each place of a coarse grid; lengths as shares of the glands' spacing.

    ``ovals`` is [6, rows, columns]: centre x and y, radius, cosine and sine of its turn, length over width.
    """

    ovals: np.ndarray
    chance: np.ndarray  # 0 to 1; a place holds a gland if this is below the share of places that do
    shift_xy: np.ndarray  # of the field's corner

    @classmethod
    def random(cls, canvas: Canvas, organ: Organ) -> "Lattice":
        places = tuple(int(side * canvas.microns_per_pixel / organ.gland_spacing_um) + 4 for side in canvas.shape_hw)
        at_x, at_y, size, squeeze, turn, chance = canvas.rng.random((6, *places), np.float32)
        x, y = np.arange(places[1])[None, :] + 0.6 * (at_x - 0.5), np.arange(places[0])[:, None] + 0.6 * (at_y - 0.5)
        radius = 0.30 + 0.16 * size
        ovals = [x, y, radius, np.cos(np.pi * turn), np.sin(np.pi * turn), 1 + 0.5 * squeeze]
        return cls(np.stack(ovals).astype(np.float32), chance, canvas.rng.random(2, np.float32))

    def holding(self, share: float) -> "Lattice":
        """With glands at that share of the places only."""
        ovals = self.ovals.copy()
        ovals[2] = np.where(self.chance < share, ovals[2], -10)
        return replace(self, ovals=ovals)


def draw_tissue(
    size_wh: tuple[int, int],
    microns_per_pixel: float,
    seed: int | np.random.Generator,
    foci: Sequence[Focus] = (),
    *,
    on_glass: bool = False,
    stain: Stain | None = None,
) -> Image.Image:
    """A field of benign tissue with ``foci`` in it, RGB; ``on_glass`` draws a ragged piece of it amid empty glass.

    The same arguments give the same picture. Without ``stain`` the seed chooses one.
    """
    canvas = Canvas(size_wh, microns_per_pixel, np.random.default_rng(seed))
    stain = stain or Stain.random(canvas.rng)
    organ = Organ.random(canvas.rng)
    shares = kind_shares(canvas, foci)
    if on_glass:
        outside = 1 - piece_outline(canvas)
        shares = {kind: share * (1 - outside) for kind, share in shares.items()} | {"glass": outside}
    return _draw(canvas, organ, stain, shares)


def draw_patch(kind: str, size_wh: tuple[int, int], microns_per_pixel: float, rng: np.random.Generator) -> Image.Image:
    """A field of a single kind of tissue, RGB, in a stain and a build that ``rng`` chooses."""
    canvas = Canvas(size_wh, microns_per_pixel, rng)
    stain, organ = Stain.random(rng), Organ.random(rng)
    return _draw(canvas, organ, stain, {kind: np.ones(canvas.shape_hw, np.float32)})


def kind_shares(canvas: Canvas, foci: Sequence[Focus]) -> dict[str, Plane]:
    """How much of each pixel is of which kind; they sum to 1. Later foci lie above earlier ones."""
    x, y = canvas.places_um()
    shares = {"benign": np.ones(canvas.shape_hw, np.float32)}
    for focus in foci:
        ragged = 0.5 * (canvas.noise(focus.radius_um * 0.6) - 0.5) + 0.25 * (canvas.noise(focus.radius_um * 0.2) - 0.5)
        distance = np.hypot(x - focus.centre_um[0], y - focus.centre_um[1]) / focus.radius_um
        inside = canvas.step((1 - distance + ragged) * focus.radius_um, soft_um=8)
        shares = {kind: share * (1 - inside) for kind, share in shares.items()}
        shares[focus.kind] = shares.get(focus.kind, 0) + inside
    return shares


def piece_outline(canvas: Canvas) -> Plane:
    """Where there is tissue on the glass: one ragged piece with fissures, 0 to 1."""
    x, y = canvas.places_um()
    wide, high = (side * canvas.microns_per_pixel for side in canvas.size_wh)
    radius = np.hypot((x - wide * 0.5) / (wide * 0.46), (y - high * 0.5) / (high * 0.46))
    long_um = max(wide, high)
    ragged = 0.42 * (canvas.noise(long_um / 8) - 0.5) + 0.10 * (canvas.noise(long_um / 40) - 0.5)
    fissures = np.abs(canvas.noise(long_um / 12) - 0.5) * long_um / 12 - 30 * (canvas.noise(long_um / 9) - 0.66)
    return canvas.step((0.90 - radius + ragged) * high / 2, 2) * canvas.step(fissures, 2)


def _draw(canvas: Canvas, organ: Organ, stain: Stain, shares: dict[str, Plane]) -> Image.Image:
    haematoxylin, eosin, nuclear = np.zeros((3, *canvas.shape_hw), np.float32)
    for kind, layer in _layers(canvas, organ, set(shares)).items():
        haematoxylin += shares[kind] * layer.haematoxylin
        eosin += shares[kind] * layer.eosin
        for nuclei in layer.nuclei:
            _add_nuclei(nuclear, canvas, nuclei, shares[kind])
    crowded = DARKEST * np.tanh(nuclear / DARKEST)  # a thin section holds few nuclei above each other
    return _photograph(canvas, stain, haematoxylin + crowded, eosin)


def _photograph(canvas: Canvas, stain: Stain, haematoxylin: Plane, eosin: Plane) -> Image.Image:
    """Light through the section, out of focus as the stain's laboratory leaves it, with the noise of a camera."""
    chromatin = 0.65 + 0.7 * canvas.noise(1.1)
    uneven = 0.9 + 0.2 * canvas.noise(400)  # thickness of the section
    planes = []
    for blue, pink, light in zip(stain.haematoxylin, stain.eosin, stain.light, strict=True):
        density = uneven * (np.float32(blue) * chromatin * haematoxylin + np.float32(pink) * eosin)
        planes.append(255 * light * np.exp(-density))
    shades = np.stack(planes, axis=-1) + 5 * (canvas.rng.random((*canvas.shape_hw, 1), np.float32) - 0.5)
    image = Image.fromarray(shades.clip(0, 255).astype(np.uint8))
    return image.filter(ImageFilter.GaussianBlur(stain.blur_um / canvas.microns_per_pixel))


def _layers(canvas: Canvas, organ: Organ, kinds: set[str]) -> dict[str, Layer]:
    empty = np.zeros(canvas.shape_hw, np.float32)
    layers = {"glass": Layer(empty, 0.02 * canvas.noise(60), [])}
    if kinds - {"glass"}:
        layers["stroma"] = _stroma(canvas, organ)
    if kinds & set(GLANDULAR_KINDS):
        lattice = Lattice.random(canvas, organ)
        edge_um = _gland_edge(canvas, organ, lattice.holding(organ.gland_share), swelling=1.0, warp_um=14)
        layers["benign"] = _benign(canvas, organ, layers["stroma"], edge_um)
        if "tumour" in kinds:
            layers["tumour"] = _tumour(canvas, organ, layers["stroma"], lattice)
        if "necrosis" in kinds:
            layers["necrosis"] = _necrosis(canvas, organ, edge_um)
    return {kind: layer for kind, layer in layers.items() if kind in kinds}


def _stroma(canvas: Canvas, organ: Organ) -> Layer:
    """Wavy collagen with clefts, spindle-shaped nuclei along it, lymphocytes in clusters."""
    x, y = canvas.places_um()
    cos, sin = np.cos(np.float32(organ.fibre_turn)), np.sin(np.float32(organ.fibre_turn))
    across = cos * y - sin * x + organ.waviness_um * canvas.noise(110) + 5 * canvas.noise(20)
    fibres = canvas.streaks(across, cos * x + sin * y, wide_um=3, long_um=70)
    clefts = canvas.step(0.24 - fibres, 0.06)
    eosin = (0.40 + 0.4 * (fibres - 0.5) + 0.3 * (canvas.noise(90) - 0.5)) * (1 - 0.75 * clefts)
    clusters = canvas.step(canvas.noise(70) - (0.90 - 0.3 * organ.lymphocytes), 0.06)
    return Layer(
        haematoxylin=0.02 + 0.05 * canvas.noise(30),
        eosin=eosin.clip(0.03, None),
        nuclei=[
            Nuclei(
                0.25 - 0.2 * clefts,
                12,
                2.1,
                0.75,
                spread=0.2,
                length=3.8,
                turn=_outward(across) + np.float32(np.pi / 2),
            ),
            Nuclei(0.015 + 0.55 * clusters, 6.5, 2.7, 1.1, spread=0.08, length=1.05),
        ],
    )


def _benign(canvas: Canvas, organ: Organ, stroma: Layer, edge_um: Plane) -> Layer:
    """Round glands, one even row of nuclei at their base, cytoplasm with vacuoles, an open lumen."""
    inside = canvas.step(edge_um)
    lumen = canvas.step(edge_um - organ.epithelium_um)
    cells = inside - lumen
    vacuoles = canvas.step(canvas.noise(7) - 0.60, 0.05) * canvas.step(edge_um - 0.5 * organ.epithelium_um)
    base = canvas.step(edge_um - 1.5) * canvas.step(1.5 + 2.6 * organ.nucleus_um - edge_um)
    membrane = canvas.step(edge_um + 2) - canvas.step(edge_um - 0.5)
    cytoplasm = (0.42 + 0.2 * (canvas.noise(4) - 0.5)) * (1 - 0.7 * vacuoles)
    return Layer(
        haematoxylin=(1 - inside) * stroma.haematoxylin + 0.10 * cells + 0.03 * lumen,
        eosin=(1 - inside) * stroma.eosin + cytoplasm * cells + 0.04 * lumen + 0.15 * membrane,
        nuclei=[
            Nuclei(0.95 * base, 2.05 * organ.nucleus_um, organ.nucleus_um, 0.8, length=1.35, turn=_outward(edge_um)),
            *_only_where(1 - inside, stroma.nuclei),
        ],
    )


def _tumour(canvas: Canvas, organ: Organ, stroma: Layer, lattice: Lattice) -> Layer:
    """Glands back to back with slits or sieves for lumina, large uneven dark nuclei everywhere in them."""
    edge_um = _gland_edge(canvas, organ, lattice, swelling=1.40 - 0.20 * organ.nests, warp_um=40)
    edge_um = edge_um + 45 * (canvas.noise(1.3 * organ.gland_spacing_um) - 0.45)
    inside = canvas.step(edge_um)
    holes = canvas.step(canvas.noise(26) - 0.74, 0.06) * canvas.step(edge_um - 10, 3)
    cells = inside * (1 - holes)
    cytoplasm = 0.40 + 0.25 * (canvas.noise(5) - 0.5)
    thick = canvas.noise(45)
    return Layer(
        haematoxylin=(1 - inside) * stroma.haematoxylin + (0.20 + 0.12 * thick) * cells,
        eosin=(1 - inside) * stroma.eosin + cytoplasm * cells + 0.06 * inside * holes,
        nuclei=[
            Nuclei(
                0.85 * cells, 2.1 * organ.nucleus_um, 1.3 * organ.nucleus_um, 0.95, spread=0.28, length=1.4, rim=0.4
            ),
            Nuclei(0.10 * cells, 9, 1.0 * organ.nucleus_um, 1.7, spread=0.3, length=1.8, rim=0),
            *_only_where(1 - inside, stroma.nuclei),
        ],
    )


def _necrosis(canvas: Canvas, organ: Organ, edge_um: Plane) -> Layer:
    """Smudged pale pink in which glands show as ghosts, cells as outlines, nuclei as dust."""
    ghost = canvas.step(edge_um, 6)
    smudge, grain = canvas.noise(40), canvas.noise(3)
    dusty = canvas.step(canvas.noise(55) - 0.55, 0.15)
    eosin = 0.30 + 0.10 * ghost + 0.22 * (smudge - 0.5) + 0.20 * (grain - 0.5)
    return Layer(
        haematoxylin=0.03 + 0.05 * smudge,
        eosin=eosin.clip(0.05, None),
        nuclei=[
            Nuclei(0.25 + 0.3 * ghost, 2.6 * organ.nucleus_um, 1.2 * organ.nucleus_um, 0.10, spread=0.2, rim=0.9),
            Nuclei(0.08 + 0.5 * dusty, 4.5, 0.75, 1.0, spread=0.4, rim=0),
            Nuclei(0.03 + 0.10 * dusty, 11, 1.7, 1.3, spread=0.3, rim=0),
        ],
    )


def _only_where(share: Plane, populations: list[Nuclei]) -> list[Nuclei]:
    return [replace(nuclei, share=nuclei.share * share) for nuclei in populations]


def _gland_edge(canvas: Canvas, organ: Organ, lattice: Lattice, *, swelling: float, warp_um: float) -> Plane:
    """How far each pixel lies inside the border of the nearest gland, microns; negative in the stroma.

    A pixel is compared with the four places of the lattice around it; ``warp_um`` bends the ovals. It is smooth,
    so it is computed on a coarser grid where pixels are small.
    """
    fewer = max(1, int(GLAND_GRID_UM / canvas.microns_per_pixel))
    width, height = (-(-side // fewer) for side in canvas.size_wh)
    grid = Canvas((width, height), canvas.microns_per_pixel * fewer, canvas.rng)
    places = (axis / organ.gland_spacing_um for axis in grid.places_um())
    x, y = (axis + shift for axis, shift in zip(places, lattice.shift_xy, strict=True))
    warp = warp_um / organ.gland_spacing_um
    bent_x, bent_y = (axis + warp * (grid.noise(40) - 0.5) for axis in (x, y))
    columns, rows = x[0].astype(int), y[:, 0].astype(int)
    edge = np.full(grid.shape_hw, -10, np.float32)
    for row, column in ((rows + down, columns + right) for down in (0, 1) for right in (0, 1)):
        at_x, at_y, radius, cos, sin, squeeze = lattice.ovals[:, row[:, None], column]
        away_x, away_y = bent_x - at_x, bent_y - at_y
        along, across = cos * away_x + sin * away_y, squeeze * (cos * away_y - sin * away_x)
        np.maximum(edge, swelling * radius - np.sqrt(along * along + across * across), out=edge)
    coarse = Image.fromarray(edge * organ.gland_spacing_um)
    fine = coarse.resize((width * fewer, height * fewer), Image.Resampling.BICUBIC)
    return np.asarray(fine)[: canvas.size_wh[1], : canvas.size_wh[0]]


def _outward(edge_um: Plane) -> Plane:
    """The direction across the border of the nearest gland, radians."""
    down, right = np.gradient(edge_um)
    return np.arctan2(down, right)


def _add_nuclei(plane: Plane, canvas: Canvas, nuclei: Nuclei, share: Plane) -> None:
    """Adds one population to the haematoxylin: each nucleus by itself, or their mean where they are below a pixel."""
    share = share * nuclei.share
    radius_px = nuclei.radius_um / canvas.microns_per_pixel
    if radius_px < SMALLEST_STAMP_PX:
        per_pixel = (canvas.microns_per_pixel / nuclei.spacing_um) ** 2
        absorbed = np.pi * radius_px**2 * (1 - np.exp(-nuclei.darkness))  # light is averaged in a pixel, not density
        plane += np.float32(absorbed) * _counts(canvas, share * np.float32(per_pixel))
        return
    x, y = _places(canvas, nuclei.spacing_um, share)
    column, row = x.astype(int), y.astype(int)
    uneven = canvas.rng.normal(0, 1, (3, len(x))).clip(-2, 2)
    radii = radius_px * (1 + nuclei.spread * uneven[0])
    turns = canvas.rng.uniform(0, np.pi, len(x)) if nuclei.turn is None else nuclei.turn[row, column] + 0.2 * uneven[1]
    darkness = nuclei.darkness * (1 + nuclei.spread * uneven[2])
    order = np.argsort(radii)  # so that each group's window is no wider than it needs to be
    for start in range(0, len(order), STAMPS_AT_ONCE):
        some = order[start : start + STAMPS_AT_ONCE]
        _stamp(plane, (x[some], y[some]), radii[some], nuclei.length, turns[some], darkness[some], nuclei.rim)


def _counts(canvas: Canvas, expected: Plane) -> Plane:
    """About as many nuclei in each pixel as chance gives: Poisson's spread without its cost."""
    expected = expected.clip(0, None)
    return (expected + np.sqrt(expected) * canvas.rng.standard_normal(expected.shape, np.float32)).clip(0, None)


def _places(canvas: Canvas, spacing_um: float, share: Plane) -> tuple[np.ndarray, np.ndarray]:
    """Pixels where nuclei lie: on that share of the places of a jittered grid, so that few overlap."""
    spacing = spacing_um / canvas.microns_per_pixel
    height, width = canvas.shape_hw
    y, x = np.mgrid[0 : int(height / spacing) + 1, 0 : int(width / spacing) + 1].reshape(2, -1)
    y, x = ((axis + canvas.rng.uniform(0.1, 0.9, axis.size)) * spacing for axis in (y, x + 0.5 * (y % 2) - 0.25))
    y, x = (axis[(x >= 0) & (x < width) & (y < height)] for axis in (y, x))
    taken = canvas.rng.random(len(x)) < share[y.astype(int), x.astype(int)]
    return x[taken], y[taken]


def _stamp(
    plane: Plane,
    places_xy: tuple[np.ndarray, np.ndarray],
    radii: np.ndarray,
    length: float,
    turns: np.ndarray,
    darkness: np.ndarray,
    rim: float,
) -> None:
    """Adds ovals to ``plane``: pixels, radians; each with a soft edge, and paler in the middle by ``rim``."""
    reach = int(np.ceil(radii.max() * np.sqrt(length) + 1))
    around = np.arange(-reach, reach + 1, dtype=np.float32)
    columns, rows = (np.floor(axis).astype(int) for axis in places_xy)
    away_x = around[None, None, :] + 0.5 - (places_xy[0] - columns)[:, None, None].astype(np.float32)
    away_y = around[None, :, None] + 0.5 - (places_xy[1] - rows)[:, None, None].astype(np.float32)
    cos, sin, radius, dark = (
        axis.astype(np.float32)[:, None, None] for axis in (np.cos(turns), np.sin(turns), radii, darkness)
    )
    long, short = radius * np.float32(np.sqrt(length)), radius / np.float32(np.sqrt(length))
    distance = np.hypot((cos * away_x + sin * away_y) / long, (cos * away_y - sin * away_x) / short)
    cover = ((1 - distance) * short + 0.5).clip(0, 1)
    values = dark * cover * (1 - rim + rim * distance * distance)
    height, width = plane.shape
    row, column = (
        np.broadcast_to(axis, values.shape)
        for axis in (
            rows[:, None, None] + around.astype(int)[None, :, None],
            columns[:, None, None] + around.astype(int)[None, None, :],
        )
    )
    drawn = (cover > 0) & (row >= 0) & (row < height) & (column >= 0) & (column < width)
    np.add.at(plane, (row[drawn], column[drawn]), values[drawn])
