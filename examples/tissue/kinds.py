"""What each kind of tissue consists of: how much of either dye, and which nuclei."""

from dataclasses import dataclass, replace

import numpy as np

from .canvas import Canvas, Plane
from .glands import Lattice, Organ, gland_edge
from .nuclei import Nuclei

KINDS = ("benign", "tumour", "necrosis", "stroma", "glass")
GLANDULAR_KINDS = {"benign", "tumour", "necrosis"}


@dataclass
class Layer:
    """What one kind of tissue consists of: densities of the dyes and the nuclei in them."""

    haematoxylin: Plane
    eosin: Plane
    nuclei: list[Nuclei]


def draw_layers(canvas: Canvas, organ: Organ, kinds: set[str]) -> dict[str, Layer]:
    empty = np.zeros(canvas.shape_hw, np.float32)
    layers = {"glass": Layer(empty, 0.02 * canvas.noise(60), [])}
    if kinds - {"glass"}:
        layers["stroma"] = _stroma(canvas, organ)
    if kinds & GLANDULAR_KINDS:
        lattice = Lattice.random(canvas, organ)
        edge_um = gland_edge(canvas, organ, lattice.holding(organ.gland_share), swelling=1.0, warp_um=14)
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
    edge_um = gland_edge(canvas, organ, lattice, swelling=1.40 - 0.20 * organ.nests, warp_um=40)
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


def _outward(edge_um: Plane) -> Plane:
    """The direction across the border of the nearest gland, radians."""
    down, right = np.gradient(edge_um)
    return np.arctan2(down, right)
