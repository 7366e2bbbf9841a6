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
from dataclasses import dataclass

import numpy as np
from PIL import Image

from .canvas import Canvas, Plane
from .glands import Organ
from .kinds import KINDS, draw_layers
from .nuclei import add_nuclei
from .stain import Stain, photograph

__all__ = ["KINDS", "Focus", "Stain", "draw_mapped_tissue", "draw_patch", "draw_tissue"]
DARKEST = 1.3  # density of nuclei lying above each other


@dataclass(frozen=True)
class Focus:
    """A round spot of another kind of tissue with a ragged edge; microns from the upper left corner of the field."""

    kind: str
    centre_um: tuple[float, float]
    radius_um: float


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

    A side has 2 px at least. The same arguments give the same picture; without ``stain`` the seed chooses one.
    """
    return draw_mapped_tissue(size_wh, microns_per_pixel, seed, foci, on_glass=on_glass, stain=stain)[0]


def draw_mapped_tissue(
    size_wh: tuple[int, int],
    microns_per_pixel: float,
    seed: int | np.random.Generator,
    foci: Sequence[Focus] = (),
    *,
    on_glass: bool = False,
    piece_um: float | None = None,
    stain: Stain | None = None,
) -> tuple[Image.Image, dict[str, Plane]]:
    """`draw_tissue`, and how much of each pixel is of which kind: the truth about the picture.

    With ``piece_um`` it is a part from the middle of a piece of that length, with the fissures that one has.
    """
    canvas = Canvas(size_wh, microns_per_pixel, np.random.default_rng(seed))
    stain = stain or Stain.random(canvas.rng)
    organ = Organ.random(canvas.rng)
    shares = kind_shares(canvas, foci)
    if on_glass or piece_um:
        whole = piece_outline(canvas) if piece_um is None else between_fissures(canvas, piece_um)
        outside = 1 - whole
        shares = {kind: share * (1 - outside) for kind, share in shares.items()}
        shares["glass"] = shares.get("glass", 0) + outside
    return _draw(canvas, organ, stain, shares), shares


def draw_patch(
    kind: str, size_wh: tuple[int, int], microns_per_pixel: float, rng: np.random.Generator, stain: Stain | None = None
) -> Image.Image:
    """A field of a single kind of tissue, RGB, in a build and, without ``stain``, a stain that ``rng`` chooses."""
    canvas = Canvas(size_wh, microns_per_pixel, rng)
    stain = stain or Stain.random(rng)
    return _draw(canvas, Organ.random(rng), stain, {kind: np.ones(canvas.shape_hw, np.float32)})


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
    radius = np.hypot((x - wide * 0.5) / (wide * 0.43), (y - high * 0.5) / (high * 0.43))
    long_um = max(wide, high)
    ragged = 0.42 * (canvas.noise(long_um / 8) - 0.5) + 0.10 * (canvas.noise(long_um / 40) - 0.5)
    return canvas.step((0.90 - radius + ragged) * high / 2, 2) * between_fissures(canvas, long_um)


def between_fissures(canvas: Canvas, piece_um: float) -> Plane:
    """Where a piece of that length is not torn, 0 to 1."""
    fissures = np.abs(canvas.noise(piece_um / 12) - 0.5) * piece_um / 12 - 30 * (canvas.noise(piece_um / 9) - 0.66)
    return canvas.step(fissures, 2)


def _draw(canvas: Canvas, organ: Organ, stain: Stain, shares: dict[str, Plane]) -> Image.Image:
    haematoxylin, eosin, nuclear = np.zeros((3, *canvas.shape_hw), np.float32)
    layers = draw_layers(canvas, organ, set(shares))
    for kind, share in shares.items():
        haematoxylin += share * layers[kind].haematoxylin
        eosin += share * layers[kind].eosin
        for nuclei in layers[kind].nuclei:
            add_nuclei(nuclear, canvas, nuclei, share)
    crowded = DARKEST * np.tanh(nuclear / DARKEST)  # a thin section holds few nuclei above each other
    return photograph(canvas, stain, haematoxylin + crowded, eosin)
