"""Random crops and colours for the encoder's training.

A crop is cut from a picture the way the model's own low, middle and high views are: a box, stretched to the crop's
side with bicubic antialiasing. Colours are changed on whole batches of tensors.
"""

from collections.abc import Sequence

import numpy as np
import torch
from PIL import Image

from demo_training.dataset import ImageRow
from demo_training.focus_map import Box

CROP_SIDE_PX = 112
PIXEL_MEAN = torch.tensor([0.48145466, 0.4578275, 0.40821073]).view(1, 3, 1, 1)  # CLIP's
PIXEL_STD = torch.tensor([0.26862954, 0.26130258, 0.27577711]).view(1, 3, 1, 1)
LOW, MIDDLE = 0.5, 0.38  # share of the views drawn; the rest are high ones
FLIPS = (Image.Transpose.FLIP_LEFT_RIGHT, Image.Transpose.FLIP_TOP_BOTTOM, Image.Transpose.TRANSPOSE)
BLURRED = 0.15  # share of crops whose sharpness is taken away, so that it does not tell the data sets apart
TURNED = 0.4  # share of radiographs turned a little
LARGEST_TURN_DEGREES = 8.0
GENTLE = 0.04  # strength of changes to MedNIST's grey levels


def random_box(rng: np.random.Generator) -> Box:
    """A box that covers as much of the picture as a low, middle or high crop does."""
    kind = rng.random()
    if kind < LOW:
        part = rng.uniform(0.75, 1.0, 2)
    elif kind < LOW + MIDDLE:
        part = np.array([0.5, 0.5]) * rng.uniform(0.75, 1.35, 2)
    else:
        part = rng.permutation([1 / 6, 1 / 4]) * rng.uniform(0.9, 1.8, 2)
    left, top = rng.uniform(0, 1, 2) * (1 - part)
    return float(left), float(top), float(left + part[0]), float(top + part[1])


def random_crop(picture: Image.Image, box: Box, row: ImageRow, rng: np.random.Generator) -> np.ndarray:
    """The crop of a box, flipped, and sometimes turned or blurred: uint8 [side, side, 3]."""
    width, height = picture.size
    place = box[0] * width, box[1] * height, box[2] * width, box[3] * height
    if rng.random() < BLURRED:
        small = int(rng.integers(40, 96))
        picture = picture.resize((small, small), Image.Resampling.BICUBIC, box=place)
        place = 0, 0, small, small
    crop = picture.resize((CROP_SIDE_PX, CROP_SIDE_PX), Image.Resampling.BICUBIC, box=place)
    if not row.microscopic and rng.random() < TURNED:
        angle = float(rng.uniform(-LARGEST_TURN_DEGREES, LARGEST_TURN_DEGREES))
        crop = crop.rotate(angle, Image.Resampling.BILINEAR)
    for flip in FLIPS if row.microscopic else FLIPS[:1]:
        if rng.random() < 0.5:
            crop = crop.transpose(flip)
    return np.asarray(crop)


def whole_picture(picture: Image.Image) -> np.ndarray:
    """The low view: the whole picture, uint8 [side, side, 3]."""
    return np.asarray(picture.resize((CROP_SIDE_PX, CROP_SIDE_PX), Image.Resampling.BICUBIC))


def to_unit(crops: list[np.ndarray]) -> torch.Tensor:
    """uint8 crops -> float in 0..1, [crops, 3, side, side]."""
    return torch.from_numpy(np.stack(crops)).permute(0, 3, 1, 2).contiguous().float().div_(255)


def normalise(crops: torch.Tensor) -> torch.Tensor:
    """0..1 -> what the encoder takes, with CLIP's constants."""
    return (crops - PIXEL_MEAN) / PIXEL_STD


def jitter_colours(crops: torch.Tensor, rows: Sequence[ImageRow], rng: torch.Generator) -> torch.Tensor:
    """Stain, brightness and contrast changes; grey pictures stay grey.

    ``crops`` is [crops, 3, side, side] in 0..1. A power per channel scales the optical density, which is what a
    stronger or weaker stain does. MedNIST's windows tell its regions apart, so they are hardly changed.
    """
    count = len(crops)
    stained = torch.tensor([row.microscopic for row in rows]).view(-1, 1, 1, 1)
    strength = torch.tensor([GENTLE if row.dataset == "mednist" else 1.0 for row in rows]).view(-1, 1, 1, 1)

    def uniform(low: float, high: float, channels: int = 1) -> torch.Tensor:
        return torch.empty(count, channels, 1, 1).uniform_(low, high, generator=rng)

    power = torch.where(stained, uniform(-0.3, 0.3, 3) + uniform(-0.3, 0.3), uniform(-0.4, 0.4))
    crops = crops.clamp(1e-3, 1) ** (strength * power).exp()
    mean = crops.mean((1, 2, 3), keepdim=True)
    contrast, brightness = 1 + strength * uniform(-0.25, 0.3), 1 + strength * uniform(-0.15, 0.15)
    crops = (crops - mean) * contrast + mean * brightness
    grey = crops.mean(1, keepdim=True)
    keep = torch.where(stained, uniform(0.5, 1.2), torch.ones_like(uniform(0, 1)))
    keep = keep * (uniform(0, 1) > 0.08)  # a few pictures lose their colour altogether
    return (grey + (crops - grey) * keep).clamp_(0, 1)
