"""Dragonfly once more, written from the description of the published networks and from nothing else of this project.

Loops and plain tensor operations, one crop and one token sequence at a time, no cache, in float64. Slow, and meant to
be read beside the published description: what ``dragonfly_med`` computes must be the same.
"""

import math
from typing import Any

import numpy as np
import torch
from PIL import Image

Weights = dict[str, torch.Tensor]

_MEAN = np.array([0.48145466, 0.4578275, 0.40821073], np.float32)
_STD = np.array([0.26862954, 0.26130258, 0.27577711], np.float32)


# --- canvases and pixels


def choose(size_wh: tuple[int, int], canvases: list[tuple[int, int]]) -> tuple[int, int]:
    best, most, least = canvases[0], 0, math.inf
    for width, height in canvases:
        scale = min(width / size_wh[0], height / size_wh[1])
        effective = min(int(size_wh[0] * scale) * int(size_wh[1] * scale), size_wh[0] * size_wh[1])
        wasted = width * height - effective
        if effective > most or (effective == most and wasted < least):
            best, most, least = (width, height), effective, wasted
    return best


def canvas_sizes(size_wh: tuple[int, int], side: int, version: str) -> list[tuple[int, int]]:
    def of(*grids: tuple[int, int]) -> tuple[int, int]:
        return choose(size_wh, [(columns * side, rows * side) for columns, rows in grids])

    middle = of((2, 2), (1, 4), (4, 1))
    if version == "v2":
        return [(side, side), middle, (3 * middle[0], 3 * middle[1])]
    return [(side, side), middle, of((6, 4), (4, 6), (3, 8), (8, 3), (2, 12), (12, 2))]


def stretch(pixels: np.ndarray, size_wh: tuple[int, int]) -> np.ndarray:
    """Bicubic with antialiasing, horizontally and then vertically, 8 bits after each pass."""
    wide = _resample(pixels, size_wh[0])
    return _resample(wide.transpose(1, 0, 2), size_wh[1]).transpose(1, 0, 2)


def _resample(rows: np.ndarray, length: int) -> np.ndarray:
    if rows.shape[1] == length:
        return rows
    scale = rows.shape[1] / length
    stretched = max(scale, 1.0)
    out = np.empty((rows.shape[0], length, 3), np.uint8)
    for place in range(length):
        centre = (place + 0.5) * scale
        first = max(0, int(centre - 2 * stretched + 0.5))
        last = min(rows.shape[1], int(centre + 2 * stretched + 0.5))
        parts = [_cubic((x + 0.5 - centre) * (1 / stretched)) for x in range(first, last)]
        fixed = np.array(parts) / sum(parts) * 2**22  # Pillow computes with 22 bits behind the point
        fixed = np.trunc(fixed + np.where(fixed < 0, -0.5, 0.5)).astype(np.int64)
        summed = (rows[:, first:last].astype(np.int64) * fixed[:, None]).sum(axis=1) + 2**21
        out[:, place] = np.clip(summed >> 22, 0, 255)
    return out


def _cubic(x: float) -> float:
    x = abs(x)
    if x < 1:
        return (1.5 * x - 2.5) * x * x + 1
    return (((x - 5) * x + 8) * x - 4) * -0.5 if x < 2 else 0.0


def crops(image: Image.Image, side: int, version: str) -> torch.Tensor:
    """Normalised: [crops, 3, side, side]"""
    pixels, cut = np.asarray(image.convert("RGB")), []
    for width, height in canvas_sizes(image.size, side, version):
        canvas = stretch(pixels, (width, height))
        cut += [canvas[y : y + side, x : x + side] for y in range(0, height, side) for x in range(0, width, side)]
    scaled = (np.stack(cut) * (1 / 255)).astype(np.float32)
    return torch.from_numpy(((scaled - _MEAN) / _STD).transpose(0, 3, 1, 2)).double()


# --- token sequence


def image_ids(version: str, patches: int, image_id: int, newline_id: int) -> list[int]:
    full = [image_id] * (1 + patches**2) + [newline_id]
    return full * 17 if version == "v1" else full + ([image_id] * 37 + [newline_id]) * 40


# --- network


class NaiveNetwork:
    def __init__(self, version: str, vision: dict[str, Any], text: dict[str, Any], weights: Weights) -> None:
        self.version, self.vision, self.text = version, vision, text
        self.weights = {name: weight.double() for name, weight in weights.items()}

    def image_embeddings(self, pixels: torch.Tensor) -> tuple[torch.Tensor, list[int] | None]:
        """In the order of the placeholders, and the numbers of v1's chosen high crops."""
        seen = [self._linear(self._encode(crop), "vision_embed_tokens") for crop in pixels]
        if self.version == "v2":
            return torch.cat([seen[0], *(_pooled(tokens) for tokens in seen[1:])]), None
        mean = [tokens.mean(dim=0) for tokens in seen]
        chosen = []
        for region in range(4):
            scores = {
                number: float(mean[1 + region] @ mean[5 + number]) for number in range(6 * region, 6 * region + 6)
            }
            chosen += sorted(scores, key=lambda number: -scores[number])[:3]
        return torch.cat([*seen[:5], *(seen[5 + number] for number in sorted(chosen))]), sorted(chosen)

    def logits(self, ids: list[int], images: torch.Tensor, image_id: int) -> torch.Tensor:
        """What follows the last id: [vocabulary]"""
        words = self.weights["language_model.model.embed_tokens.weight"]
        left = iter(images)
        hidden = torch.stack([next(left) if token == image_id else words[token] for token in ids])
        for number in range(self.text["num_hidden_layers"]):
            layer = f"language_model.model.layers.{number}"
            hidden = hidden + self._llama_attention(self._rms_norm(hidden, f"{layer}.input_layernorm"), layer)
            normed = self._rms_norm(hidden, f"{layer}.post_attention_layernorm")
            gate = self._linear(normed, f"{layer}.mlp.gate_proj")
            wide = gate * gate.sigmoid() * self._linear(normed, f"{layer}.mlp.up_proj")
            hidden = hidden + self._linear(wide, f"{layer}.mlp.down_proj")
        return self._linear(self._rms_norm(hidden[-1], "language_model.model.norm"), "language_model.lm_head")

    def _encode(self, crop: torch.Tensor) -> torch.Tensor:
        """[3, side, side] to what comes out of the second-to-last layer: [tokens, width]"""
        patch, tower = self.vision["patch_size"], "image_encoder.vision_model"
        starts = range(0, self.vision["image_size"], patch)
        pieces = torch.stack([crop[:, y : y + patch, x : x + patch].flatten() for y in starts for x in starts])
        hidden = pieces @ self.weights[f"{tower}.embeddings.patch_embedding.weight"].flatten(1).T
        hidden = torch.cat([self.weights[f"{tower}.embeddings.class_embedding"][None], hidden])
        hidden = hidden + self.weights[f"{tower}.embeddings.position_embedding.weight"]
        hidden = self._layer_norm(hidden, f"{tower}.pre_layrnorm")
        for number in range(self.vision["num_hidden_layers"] - 1):
            layer = f"{tower}.encoder.layers.{number}"
            normed = self._layer_norm(hidden, f"{layer}.layer_norm1")
            query, key, value = (self._heads(normed, f"{layer}.self_attn.{part}_proj", "vision") for part in "qkv")
            hidden = hidden + self._linear(_attend(query, key, value), f"{layer}.self_attn.out_proj")
            wide = self._linear(self._layer_norm(hidden, f"{layer}.layer_norm2"), f"{layer}.mlp.fc1")
            hidden = hidden + self._linear(wide * (1.702 * wide).sigmoid(), f"{layer}.mlp.fc2")
        return hidden

    def _llama_attention(self, hidden: torch.Tensor, layer: str) -> torch.Tensor:
        query, key, value = (self._heads(hidden, f"{layer}.self_attn.{part}_proj", "text") for part in "qkv")
        shared = len(query) // len(key)
        key, value = (
            _rotated(key, self.text["rope_theta"]).repeat_interleave(shared, 0),
            value.repeat_interleave(shared, 0),
        )
        behind = torch.full((len(hidden), len(hidden)), -math.inf, dtype=torch.float64).triu(1)
        mixed = _attend(_rotated(query, self.text["rope_theta"]), key, value, behind)
        return self._linear(mixed, f"{layer}.self_attn.o_proj")

    def _heads(self, hidden: torch.Tensor, name: str, part: str) -> torch.Tensor:
        """[heads, tokens, width of a head]"""
        heads = self.vision["num_attention_heads"]
        width = self.text["head_dim"] if part == "text" else self.vision["hidden_size"] // heads
        return self._linear(hidden, name).unflatten(-1, (-1, width)).transpose(0, 1)

    def _linear(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        return hidden @ self.weights[f"{name}.weight"].T + self.weights.get(f"{name}.bias", 0)

    def _layer_norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        apart = hidden - hidden.mean(-1, keepdim=True)
        normed = apart / (apart.square().mean(-1, keepdim=True) + 1e-5).sqrt()
        return normed * self.weights[f"{name}.weight"] + self.weights[f"{name}.bias"]

    def _rms_norm(self, hidden: torch.Tensor, name: str) -> torch.Tensor:
        size = (hidden.square().mean(-1, keepdim=True) + self.text["rms_norm_eps"]).sqrt()
        return hidden / size * self.weights[f"{name}.weight"]


def _pooled(tokens: torch.Tensor) -> torch.Tensor:
    grid = math.isqrt(len(tokens) - 1)
    square, patches = grid // 6, tokens[1:].unflatten(0, (grid, grid))
    starts = range(0, grid, square)
    means = [patches[y : y + square, x : x + square].flatten(0, 1).mean(dim=0) for y in starts for x in starts]
    return torch.stack([tokens[0], *means])


def _attend(
    query: torch.Tensor, key: torch.Tensor, value: torch.Tensor, mask: torch.Tensor | float = 0.0
) -> torch.Tensor:
    scores = query @ key.transpose(1, 2) / math.sqrt(query.shape[-1]) + mask
    return (scores.softmax(-1) @ value).transpose(0, 1).flatten(1)


def _rotated(heads: torch.Tensor, theta: float) -> torch.Tensor:
    """Rotary positions: the first half of a head is turned against the second."""
    half = heads.shape[-1] // 2
    speed = theta ** (-torch.arange(half).double() / half)
    angle = torch.arange(heads.shape[1]).double()[:, None] * speed
    one, other = heads[..., :half], heads[..., half:]
    return torch.cat([one * angle.cos() - other * angle.sin(), other * angle.cos() + one * angle.sin()], dim=-1)
