"""The package against a naive second implementation, on sizes and shapes of networks that no recorded case has."""

import json
import shutil
from pathlib import Path
from random import Random
from typing import Any

import naive_network as naive
import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st
from make_files import GOLDEN
from PIL import Image
from safetensors.torch import save_file

from dragonfly_med import DragonflyConfig, DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.crops import stretch
from dragonfly_med.views import Architecture, plan_views

pytestmark = pytest.mark.usefixtures("one_thread")

SIDES: dict[str, int] = {"v1": 224, "v2": 336}
PATCHES = {"v1": 32, "v2": 14}
ARCHITECTURES: dict[str, Architecture] = {"v1": "dragonfly-v1", "v2": "dragonfly-v2"}

versions = st.sampled_from(sorted(SIDES))
# Around the multiples of a crop's side one canvas begins to win over another.
around_a_multiple = st.builds(
    lambda side, count, off: side * count + off, st.sampled_from([224, 336]), st.integers(1, 13), st.integers(-2, 2)
)
lengths = st.integers(1, 5000) | around_a_multiple


@settings(max_examples=200)
@given(lengths, lengths, versions)
@example(1, 5000, "v1")
@example(447, 448, "v2")
def test_canvases(width: int, height: int, version: str) -> None:
    plan = plan_views((width, height), SIDES[version], ARCHITECTURES[version])
    assert list(plan.canvas_sizes) == naive.canvas_sizes((width, height), SIDES[version], version)


@settings(max_examples=25)
@given(
    st.integers(0, 2**32 - 1), *[st.integers(1, 60)] * 4, st.sampled_from(["RGB", "L", "LA", "RGBA", "P", "CMYK", "1"])
)
def test_stretching(seed: int, width: int, height: int, to_width: int, to_height: int, mode: str) -> None:
    image = picture(seed, (width, height), mode)
    expected = naive.stretch(np.asarray(image.convert("RGB")), (to_width, to_height))
    np.testing.assert_array_equal(np.asarray(stretch(image, (to_width, to_height))), expected)


@pytest.mark.parametrize("version", ["v1", "v1", "v2"], ids=["v1", "v1 again", "v2"])
def test_a_network_of_any_shape(version: str, request: pytest.FixtureRequest, tmp_path: Path) -> None:
    random = Random(request.node.name)
    torch.manual_seed(random.randrange(2**32))
    vision, text, weights = write_network(tmp_path / "network", version, random)
    processor = DragonflyProcessor.from_pretrained(tmp_path / "network")
    model = DragonflyForCausalLM.from_pretrained(tmp_path / "network")
    image = picture(random.randrange(2**32), (random.randint(1, 150), random.randint(1, 150)), "RGB")
    prompt = processor.prompt("Où est la lésion ?", "Be careful.", [("What is it?", "An X-ray."), ("Where?", "")])
    inputs = processor(text=[prompt], images=[image])

    pixels = naive.crops(image, SIDES[version], version)
    assert torch.equal(inputs["pixel_values"][0], pixels.float())
    ids = naive.image_ids(version, SIDES[version] // PATCHES[version], model.config.image_token_id, 587)
    assert inputs["input_ids"][0].tolist() == [*ids, 584, *processor.tokenizer.encode(prompt, add_special_tokens=False)]

    reference = naive.NaiveNetwork(version, vision, text, weights)
    images, chosen = reference.image_embeddings(pixels)
    logits = reference.logits(inputs["input_ids"][0].tolist(), images, model.config.image_token_id)
    with torch.inference_mode():
        output = model(**inputs, logits_to_keep=1)
        embeddings, _ = model.embed_images(inputs["pixel_values"])
    assert (None if output.selected_crops is None else output.selected_crops[0].tolist()) == chosen
    assert (embeddings[0] - images).norm() < 1e-5 * images.norm()
    assert (output.logits[0, -1] - logits).norm() < 1e-4 * logits.norm()


def picture(seed: int, size_wh: tuple[int, int], mode: str) -> Image.Image:
    levels = np.random.default_rng(seed).integers(0, 256, (size_wh[1], size_wh[0], 3), np.uint8)
    return Image.fromarray(levels).convert(mode)


def write_network(folder: Path, version: str, random: Random) -> tuple[dict[str, Any], dict[str, Any], naive.Weights]:
    """A checkpoint of a shape drawn at random; its vision encoder's settings, its Llama's, and its weights."""
    key_heads, sharing, eye_heads = random.choice([1, 2, 3]), random.choice([1, 2, 3]), random.choice([1, 2])
    text = {
        "hidden_size": random.choice([36, 72]),
        "intermediate_size": random.choice([30, 77]),
        "num_hidden_layers": random.choice([1, 2, 3]),
        "num_attention_heads": key_heads * sharing,
        "num_key_value_heads": key_heads,
        "head_dim": random.choice([6, 8, 10]),
        "rms_norm_eps": random.choice([1e-6, 1e-3]),
        "rope_theta": random.choice([123.0, 10_000.0]),
    }
    vision = {
        "hidden_size": eye_heads * random.choice([4, 6]),
        "intermediate_size": random.choice([10, 15]),
        "num_hidden_layers": random.choice([2, 3]),
        "num_attention_heads": eye_heads,
        "image_size": SIDES[version],
        "patch_size": PATCHES[version],
    }
    shutil.copytree(GOLDEN / version / "checkpoint", folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "image_encoder" / "config.json").write_text(json.dumps(vision))
    config = json.loads((folder / "config.json").read_text())
    config["text_config"] = {"vocab_size": 600, "bos_token_id": 584, "eos_token_id": 585} | text
    (folder / "config.json").write_text(json.dumps(config))
    shapes = DragonflyForCausalLM(DragonflyConfig.from_pretrained(folder)).state_dict()
    weights = {name: torch.randn_like(weight) * 0.3 + ("norm" in name) for name, weight in shapes.items()}
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return vision, text, weights
