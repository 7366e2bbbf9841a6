"""Stage 2: projector and language model learn to answer, from the frozen encoder's features.

In the first part of the run each picture shows six of its crops (low, two middle, three high), each at the position
that it has in a whole image block; in the last part all seventeen, chosen by the network's own zoom-in selection.
"""

import argparse
import json
import time
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaConfig

from demo_training.make_tokenizer import BOS_ID, EOS_ID, NEWLINE_ID, VOCABULARY
from demo_training.off_topic import own_questions, vqa_rad_questions
from demo_training.pretrain_encoder import ENCODER, learning_rate, make_optimizer
from demo_training.questions import blocks_about
from demo_training.sequences import (
    CROPS_IN_PROMPT,
    IMAGE_BLOCK,
    Batch,
    collate,
    shared_image_mask,
    text_part,
)
from dragonfly_med import DragonflyConfig, DragonflyForCausalLM
from dragonfly_med.modeling import rank_and_keep
from dragonfly_med.views import MIDDLE_CROPS

LANGUAGE = LlamaConfig(
    vocab_size=VOCABULARY,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=4,
    num_key_value_heads=2,
    max_position_embeddings=4096,
    rms_norm_eps=1e-5,
    rope_theta=500000.0,
    tie_word_embeddings=False,
    bos_token_id=BOS_ID,
    eos_token_id=EOS_ID,
    initializer_range=0.05,
)
TOKENS = 1 + (ENCODER.image_size // ENCODER.patch_size) ** 2
PLACES = TOKENS + 1  # positions that a crop takes, with its newline
FIRST_HIGH = 1 + MIDDLE_CROPS
KEPT_PER_RANGE = 3
LOG_EVERY = 25
BATCH = {"few": 4, "all": 3}


def new_model(encoder: Path, sample: torch.Tensor) -> DragonflyForCausalLM:
    """A network with stage 1's encoder, frozen, and a projector that at first only centres and scales ``sample``."""
    model = DragonflyForCausalLM(
        DragonflyConfig(text_config=LANGUAGE, vision_config=ENCODER, architecture="dragonfly-v1", bos_token_id=BOS_ID)
    )
    weights = torch.load(encoder, weights_only=True)["model"]
    prefix = "encoder."
    tower = {name.removeprefix(prefix): value for name, value in weights.items() if name.startswith(prefix)}
    model.image_encoder.vision_model.load_state_dict(tower)
    model.image_encoder.requires_grad_(False)
    features = sample.float().flatten(0, -2)
    scale = LANGUAGE.initializer_range / features.std(0).mean()
    with torch.no_grad():
        model.vision_embed_tokens.weight.copy_(torch.eye(ENCODER.hidden_size) * scale)
        model.vision_embed_tokens.bias.copy_(-features.mean(0) * scale)
    return model


def few_slots(features: torch.Tensor, rng: np.random.Generator) -> tuple[torch.Tensor, torch.Tensor]:
    """Six of nine crops [pictures, 9, tokens, width], and their places 0 to 16 in the prompt [6]."""
    middle = np.sort(rng.choice(MIDDLE_CROPS, 2, replace=False))
    ranges = np.sort(rng.choice(MIDDLE_CROPS, 3, replace=False))
    places = np.concatenate(
        [[0], 1 + middle, FIRST_HIGH + KEPT_PER_RANGE * ranges + rng.integers(KEPT_PER_RANGE, size=3)]
    )
    chosen = np.concatenate([[0], 1 + middle, FIRST_HIGH + ranges])
    return features[:, torch.from_numpy(chosen)], torch.from_numpy(places)


def zoomed_slots(projected: torch.Tensor) -> torch.Tensor:
    """The seventeen crops that zoom-in selection leaves of [pictures, 29, tokens, width]."""
    selected = rank_and_keep(projected.detach())  # [pictures, 12]
    rows = torch.arange(len(projected))[:, None]
    return torch.cat([projected[:, :FIRST_HIGH], projected[:, FIRST_HIGH:][rows, selected]], dim=1)


def image_block(
    model: DragonflyForCausalLM, features: torch.Tensor, phase: str, rng: np.random.Generator
) -> tuple[torch.Tensor, torch.Tensor]:
    """Embeddings [pictures, crops * 51, width] of projected crops and newlines, and their positions [crops * 51]."""
    if phase == "few":
        features, places = few_slots(features, rng)
        crops = model.vision_embed_tokens(features.float())
    else:
        places = torch.arange(CROPS_IN_PROMPT)
        crops = zoomed_slots(model.vision_embed_tokens(features.float()))
    newline = model.get_input_embeddings()(torch.tensor(NEWLINE_ID)).expand(*crops.shape[:2], 1, -1)
    embeddings = torch.cat([crops, newline], dim=2).flatten(1, 2)
    positions = (places[:, None] * PLACES + torch.arange(PLACES)).flatten()
    return embeddings, positions


def answer_loss(
    model: DragonflyForCausalLM, image: tuple[torch.Tensor, torch.Tensor], text: Batch
) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy of the answers, and how often the first id of an answer was the likeliest."""
    embeddings, positions = image
    pictures, image_length = embeddings.shape[:2]
    embedded = torch.cat([embeddings, model.get_input_embeddings()(text.ids)], dim=1)
    text_positions = text.positions + CROPS_IN_PROMPT * PLACES
    all_positions = torch.cat([positions.expand(pictures, -1), text_positions], dim=1)
    blocks = torch.cat([torch.full((pictures, image_length), IMAGE_BLOCK), text.blocks], dim=1)
    hidden = model.language_model.model(
        inputs_embeds=embedded,
        attention_mask=shared_image_mask(blocks),
        position_ids=all_positions,
        use_cache=False,
    ).last_hidden_state[:, image_length:]
    learnt = text.weights[:, 1:] > 0
    logits = model.language_model.lm_head(hidden[:, :-1][learnt])  # [answer ids, vocabulary]
    target, weights = text.ids[:, 1:][learnt], text.weights[:, 1:][learnt]
    loss = (nn.functional.cross_entropy(logits, target, reduction="none") * weights).sum() / weights.sum()
    begins = (text.weights[:, :-1] == 0)[learnt]
    return loss, float((logits.argmax(-1) == target)[begins].float().mean())


def train(options: argparse.Namespace) -> None:
    """Train for the minutes given; writes language.pt at the end and every ``save_every`` steps."""
    torch.manual_seed(options.seed)
    rng = np.random.default_rng(options.seed)
    cache = torch.load(options.features, weights_only=True)
    tokenizer = Tokenizer.from_file(str(options.tokenizer / "tokenizer.json"))
    off_topic = own_questions() * 4 + vqa_rad_questions(options.vqa_rad)
    model = new_model(options.encoder, cache["few"][:200])
    optimizer = make_optimizer(model, options.rate)
    started, step, log = time.monotonic(), 0, []
    while (done := (time.monotonic() - started) / (60 * options.minutes)) < 1:
        phase = "few" if done < options.few_share else "all"
        drawn = rng.integers(len(cache[phase]), size=BATCH[phase])
        asked = [blocks_about(cache[f"{phase}_labels"][i], off_topic, rng) for i in drawn]
        text = collate([text_part(blocks, tokenizer) for blocks in asked])
        loss, right = answer_loss(model, image_block(model, cache[phase][torch.from_numpy(drawn)], phase, rng), text)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for group in optimizer.param_groups:
            group["lr"] = learning_rate(done, options.rate)
        optimizer.step()
        optimizer.zero_grad()
        step += 1
        log.append((float(loss.detach()), right))
        if step % LOG_EVERY == 0:
            mean_loss, mean_right = np.mean(log[-LOG_EVERY:], axis=0)
            minutes = round((time.monotonic() - started) / 60, 2)
            entry = {"step": step, "phase": phase, "loss": round(mean_loss, 4), "first_right": round(mean_right, 4)}
            print(json.dumps({"minutes": minutes, **entry}), flush=True)
        if step % options.save_every == 0:
            save(model, options.out)
    save(model, options.out)


def save(model: DragonflyForCausalLM, file: Path) -> None:
    """Write the weights; a reader never sees half of them."""
    torch.save(model.state_dict(), file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path, help="encoder.pt of stage 1")
    parser.add_argument("features", type=Path, help="the file that encode_crops wrote")
    parser.add_argument("tokenizer", type=Path, help="folder of the tokenizer")
    parser.add_argument("vqa_rad", type=Path, help="VQA-RAD's qa.json")
    parser.add_argument("out", type=Path, help="file for the weights")
    parser.add_argument("--minutes", type=float, default=25, help="the learning rate falls over this time")
    parser.add_argument("--few-share", type=float, default=0.7, help="part of the run with six crops a picture")
    parser.add_argument("--rate", type=float, default=1.5e-3)
    parser.add_argument("--save-every", type=int, default=500)
    parser.add_argument("--seed", type=int, default=3)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    train(options)


if __name__ == "__main__":
    main()
