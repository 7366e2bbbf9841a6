"""Stage 4: the language model learns to answer from the frozen encoder's features, by a projector that is not learnt.

It begins with the low crop alone, goes on with some patches of the low and middle crops of many pictures, then with
those that zoom-in selection chooses from all crops, and ends with all patches of these; now and then it reads the low
crop alone all the same, as a search does that glances at a slide. Every patch stands at the position that it has in a
whole image block. Several processes may learn as one.
"""

import argparse
import json
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from tokenizers import Tokenizer
from torch import nn
from transformers import LlamaConfig

from demo_training import parallel
from demo_training.encoder import ENCODER, PATCHES
from demo_training.lessons import Pictures, read_pictures
from demo_training.make_tokenizer import BOS_ID, EOS_ID, NEWLINE_ID, VOCABULARY
from demo_training.projector import make_projector
from demo_training.schedule import SEEDS_APART, Average, Clock, make_optimizers, step, timed_options
from demo_training.scores import FIRST_HIGH
from demo_training.sequences import (
    CROPS_IN_PROMPT,
    Batch,
    collate,
    question_blocks,
)
from dragonfly_med import DragonflyConfig, DragonflyForCausalLM
from dragonfly_med.modeling import rank_and_keep
from dragonfly_med.training.attention import PACKED_ATTENTION, text_mask

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
PLACES = PATCHES + 2  # positions that a crop takes: class token, patches, newline
SAMPLE = 200  # pictures that the projector is begun from
LOG_EVERY = 50
SAVE_EVERY = 250
WORD_DROPOUT = 0.04  # share of a question's ids that are replaced by others


@dataclass(frozen=True)
class Phase:
    """A part of the run: how much of each picture is seen, and how much at once."""

    until: float  # share of the run at which it ends
    pictures: int
    questions: int
    crops: int
    patches: int  # of each crop, beside its class token


PHASES = (
    Phase(until=0.25, pictures=12, questions=14, crops=1, patches=PATCHES),
    Phase(until=0.45, pictures=24, questions=6, crops=FIRST_HIGH, patches=12),
    Phase(until=0.85, pictures=16, questions=7, crops=CROPS_IN_PROMPT, patches=12),
    Phase(until=1.0, pictures=6, questions=8, crops=CROPS_IN_PROMPT, patches=PATCHES),
)

GLANCE = Phase(until=1.0, pictures=16, questions=10, crops=1, patches=PATCHES)
GLANCES = 0.2  # share of the steps that are such ones


@dataclass(frozen=True)
class Views:
    """Features of the crops of some pictures: the class token and as many patches as a phase has, the same of each."""

    features: torch.Tensor  # [pictures, crops, kept, width]
    kept: torch.Tensor  # places of the tokens in their crop, ascending

    @property
    def positions(self) -> torch.Tensor:
        """Of all tokens and the newline after each crop, in a whole image block: [crops * (kept + 1)]."""
        places = torch.cat([self.kept, torch.tensor([PLACES - 1])])
        return (torch.arange(self.features.shape[1])[:, None] * PLACES + places).flatten()


class Lessons:
    """Pictures with their questions as token ids, and the crops that are read of each."""

    def __init__(self, pictures: Pictures, tokenizer: Tokenizer, projector: nn.Linear) -> None:
        self.pictures = pictures
        self.blocks = [question_blocks(own, tokenizer) for own in pictures.exchanges]
        self.crops = crops_in_prompt(pictures.features, projector)

    def draw(self, phase: Phase, rng: np.random.Generator) -> tuple[Views, Batch]:
        """Some pictures, and some of the questions on each."""
        drawn = rng.integers(len(self.blocks), size=phase.pictures).tolist()
        asked = []
        for i in drawn:
            own = self.blocks[i]
            asked.append([own[k] for k in rng.permutation(len(own))[: phase.questions]])
        shown = torch.tensor([self.pictures.shown(i, rng) for i in drawn])
        patches = 1 + np.sort(rng.permutation(PATCHES)[: phase.patches])
        kept = torch.from_numpy(np.concatenate([[0], patches]))
        crops = self.crops[shown, : phase.crops]
        features = self.pictures.features[shown[:, None, None], crops[:, :, None], kept]
        return Views(features.float(), kept), collate(asked)


@torch.no_grad()
def crops_in_prompt(features: torch.Tensor, projector: nn.Linear) -> torch.Tensor:
    """Numbers of the low and middle crops, and of the high ones that selection keeps."""
    first = torch.arange(FIRST_HIGH).expand(len(features), -1)
    means = torch.cat([part.float().mean(2, keepdim=True) for part in features.split(64)])
    return torch.cat([first, FIRST_HIGH + rank_and_keep(projector(means))], dim=1)


def new_model(student: dict[str, torch.Tensor], sample: torch.Tensor) -> DragonflyForCausalLM:
    """A network with stage 1's encoder and a projector that tells what it learnt, both frozen; the rest is to learn."""
    model = DragonflyForCausalLM(
        DragonflyConfig(text_config=LANGUAGE, vision_config=ENCODER, architecture="dragonfly-v1", bos_token_id=BOS_ID)
    )
    prefix = "encoder."  # the layers without it are of no use any more
    tower = {name.removeprefix(prefix): value for name, value in student.items() if name.startswith(prefix)}
    model.image_encoder.vision_model.load_state_dict(tower)
    weight, bias = make_projector(student, sample, LANGUAGE.hidden_size)
    model.vision_embed_tokens.load_state_dict({"weight": weight, "bias": bias})
    model.language_model.set_attn_implementation(PACKED_ATTENTION)
    model.image_encoder.requires_grad_(False)
    model.vision_embed_tokens.requires_grad_(False)
    return model


def image_block(model: DragonflyForCausalLM, features: torch.Tensor) -> torch.Tensor:
    """Embeddings [pictures, crops * (tokens + 1), width] of projected crops, each followed by a newline."""
    crops = model.vision_embed_tokens(features)
    newline = model.get_input_embeddings()(torch.tensor(NEWLINE_ID)).expand(*crops.shape[:2], 1, -1)
    return torch.cat([crops, newline], dim=2).flatten(1, 2)


def answer_loss(model: DragonflyForCausalLM, seen: Views, text: Batch) -> tuple[torch.Tensor, float]:
    """Weighted cross-entropy of the answers, and how often the first id of an answer was the likeliest."""
    image = image_block(model, seen.features)
    pictures, image_length = image.shape[:2]
    strange = (torch.rand(text.ids.shape) < WORD_DROPOUT) & (text.weights == 0) & (text.ids < BOS_ID)
    ids = torch.where(strange, torch.randint(BOS_ID, text.ids.shape), text.ids)
    positions = torch.cat([seen.positions.expand(pictures, -1), text.positions + CROPS_IN_PROMPT * PLACES], dim=1)
    with torch.autocast("cpu", torch.bfloat16):
        hidden = model.language_model.model(
            inputs_embeds=torch.cat([image, model.get_input_embeddings()(ids)], dim=1),
            attention_mask=text_mask(text.blocks, image_length),
            position_ids=positions,
            use_cache=False,
        ).last_hidden_state[:, image_length:]
    learnt = text.weights[:, 1:] > 0
    logits = model.language_model.lm_head(hidden[:, :-1][learnt].float())  # [answer ids, vocabulary]
    target, weights = text.ids[:, 1:][learnt], text.weights[:, 1:][learnt]
    loss = (nn.functional.cross_entropy(logits, target, reduction="none") * weights).sum() / weights.sum()
    begins = (text.weights[:, :-1] == 0)[learnt]
    return loss, float((logits.argmax(-1) == target)[begins].float().mean())


def train(options: argparse.Namespace) -> None:
    """Train for the minutes given; writes the averaged weights again and again."""
    seed = options.seed + SEEDS_APART * options.process
    torch.manual_seed(seed)
    rng, phases = np.random.default_rng(seed), np.random.default_rng(options.seed)  # all are in the same phase
    tokenizer = Tokenizer.from_file(str(options.tokenizer / "tokenizer.json"))
    pictures = read_pictures(options.features, options.rows)
    model = new_model(torch.load(options.encoder, weights_only=True), pictures.features[:SAMPLE])
    parallel.share_weights(model)
    lessons = Lessons(pictures, tokenizer, model.vision_embed_tokens)
    average = Average(model, 0.995)
    optimizers = make_optimizers(model, model.language_model.model.layers)
    clock, number, log, done = Clock(options.minutes), 0, [], 0.0
    while done < 1:
        phase = phase_at(done, phases)
        loss, right = answer_loss(model, *lessons.draw(phase, rng))
        step(optimizers, loss, done)
        average.update(model)
        done = clock.read()
        number += 1
        log.append((float(loss.detach()), right))
        if options.process:
            continue
        if number % LOG_EVERY == 0:
            mean_loss, mean_right = np.mean(log[-LOG_EVERY:], axis=0)
            entry = {"step": number, "minutes": round(clock.used, 1), "crops": phase.crops}
            print(json.dumps({**entry, "loss": round(mean_loss, 4), "first": round(mean_right, 4)}), flush=True)
        if number % SAVE_EVERY == 0 or done >= 1:
            save(average.model.state_dict(), options.out)


def phase_at(share: float, rng: np.random.Generator) -> Phase:
    """What the next step reads, when that share of the run is done."""
    if rng.random() < GLANCES:
        return GLANCE
    return next((phase for phase in PHASES if share < phase.until), PHASES[-1])


def save(weights: dict[str, torch.Tensor], file: Path) -> None:
    """Write them; a reader never sees half of them."""
    torch.save(weights, file.with_suffix(".part"))
    file.with_suffix(".part").replace(file)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path, help="encoder.pt of stage 1")
    parser.add_argument("rows", type=Path, help="the folder of stage 2")
    parser.add_argument("features", type=Path, help="the file of stage 3")
    parser.add_argument("tokenizer", type=Path, help="folder of the tokenizer")
    parser.add_argument("out", type=Path, help="file for the weights")
    train(timed_options(parser, minutes=36, seed=104))


if __name__ == "__main__":
    main()
