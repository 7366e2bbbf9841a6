"""After stages 4 and 5: a checkpoint folder laid out like the published ones, with half-precision weights.

The vision encoder's shape goes into a sub-folder, where ``image_encoder`` of config.json points to; its weights are in
model.safetensors with all the others.
"""

import argparse
import json
import shutil
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

from demo_training.augment import PIXEL_MEAN, PIXEL_STD
from demo_training.encoder import ENCODER
from demo_training.make_tokenizer import BOS_ID, EOS_ID
from demo_training.train_language import LANGUAGE

ENCODER_FOLDER = "image_encoder"
TOKENIZER_FILES = ("tokenizer.json", "tokenizer_config.json", "special_tokens_map.json")


def text_settings() -> dict[str, Any]:
    """The Llama part as the published config.json has it."""
    return {
        "bos_token_id": BOS_ID,
        "eos_token_id": EOS_ID,
        "head_dim": LANGUAGE.hidden_size // LANGUAGE.num_attention_heads,
        "hidden_act": "silu",
        "hidden_size": LANGUAGE.hidden_size,
        "intermediate_size": LANGUAGE.intermediate_size,
        "max_position_embeddings": LANGUAGE.max_position_embeddings,
        "model_type": "llama",
        "num_attention_heads": LANGUAGE.num_attention_heads,
        "num_hidden_layers": LANGUAGE.num_hidden_layers,
        "num_key_value_heads": LANGUAGE.num_key_value_heads,
        "rms_norm_eps": LANGUAGE.rms_norm_eps,
        "rope_theta": 500000.0,
        "tie_word_embeddings": False,
        "vocab_size": LANGUAGE.vocab_size,
    }


def network_settings() -> dict[str, Any]:
    """config.json."""
    return {
        "architecture": "dragonfly-v1",
        "architectures": ["DragonflyForCausalLM"],
        "bos_token_id": BOS_ID,
        "dtype": "float16",
        "eos_token_id": EOS_ID,
        "image_encoder": ENCODER_FOLDER,
        "model_type": "dragonfly",
        "text_config": text_settings(),
        "tie_word_embeddings": False,
        "use_cache": True,
    }


def encoder_settings() -> dict[str, Any]:
    """image_encoder/config.json: the flat form of a CLIP vision model."""
    return {
        "architectures": ["CLIPVisionModel"],
        "hidden_act": ENCODER.hidden_act,
        "hidden_size": ENCODER.hidden_size,
        "image_size": ENCODER.image_size,
        "intermediate_size": ENCODER.intermediate_size,
        "layer_norm_eps": ENCODER.layer_norm_eps,
        "model_type": "clip_vision_model",
        "num_attention_heads": ENCODER.num_attention_heads,
        "num_channels": 3,
        "num_hidden_layers": ENCODER.num_hidden_layers,
        "patch_size": ENCODER.patch_size,
        "projection_dim": ENCODER.projection_dim,
    }


def preprocessor_settings() -> dict[str, Any]:
    """preprocessor_config.json: CLIP's image processor at this side."""
    side = ENCODER.image_size
    return {
        "crop_size": {"height": side, "width": side},
        "do_center_crop": True,
        "do_convert_rgb": True,
        "do_normalize": True,
        "do_rescale": True,
        "do_resize": True,
        "image_mean": [round(value, 8) for value in PIXEL_MEAN.flatten().tolist()],
        "image_processor_type": "CLIPImageProcessor",
        "image_std": [round(value, 8) for value in PIXEL_STD.flatten().tolist()],
        "processor_class": "DragonflyProcessor",
        "resample": 3,
        "rescale_factor": 1 / 255,
        "size": {"shortest_edge": side},
    }


def processor_settings() -> dict[str, Any]:
    """processor_config.json."""
    return {
        "architecture": "dragonfly-v1",
        "crop_side_px": ENCODER.image_size,
        "image_encoding_style": "llava-hd",
        "patch_grid": ENCODER.image_size // ENCODER.patch_size,
        "processor_class": "DragonflyProcessor",
    }


def write_json(file: Path, settings: dict[str, Any]) -> None:
    file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")


def export(weights: dict[str, torch.Tensor], tokenizer: Path, folder: Path) -> None:
    """Write the checkpoint; ``weights`` is the network's state dict, whose names are the published ones."""
    (folder / ENCODER_FOLDER).mkdir(parents=True, exist_ok=True)
    write_json(folder / "config.json", network_settings())
    write_json(folder / ENCODER_FOLDER / "config.json", encoder_settings())
    write_json(folder / "preprocessor_config.json", preprocessor_settings())
    write_json(folder / "processor_config.json", processor_settings())
    write_json(folder / "generation_config.json", {"bos_token_id": BOS_ID, "eos_token_id": EOS_ID})
    for name in TOKENIZER_FILES:
        shutil.copyfile(tokenizer / name, folder / name)
    half = {name: value.to(torch.float16).contiguous() for name, value in weights.items() if value.is_floating_point()}
    save_file(half, folder / "model.safetensors", metadata={"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # safetensors makes it unreadable for others


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, help="weights of stage 4 or 5")
    parser.add_argument("tokenizer", type=Path, help="folder of the tokenizer")
    parser.add_argument("out", type=Path, help="the checkpoint folder")
    options = parser.parse_args()
    export(torch.load(options.weights, weights_only=True), options.tokenizer, options.out)


if __name__ == "__main__":
    main()
