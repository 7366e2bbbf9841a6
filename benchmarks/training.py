"""What a training step costs on a CPU: questions that share one image block, beside the same questions one by one.

    python benchmarks/training.py [--questions 18] [--rounds 3]

Forward and backward pass of projector and language model of the built-in network, from features of one picture; also
in bfloat16, and with one masked product for the attention instead of two. Prints ratios of processor time, which a
busy machine changes little, of the fastest of alternating rounds. The losses must be equal before anything is timed.
"""

import argparse
import sys
import time
from pathlib import Path

import torch
from transformers import AttentionInterface
from transformers.integrations.sdpa_attention import sdpa_attention_forward

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

import dragonfly_med
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.training import Exchange, Sample, Teaching
from dragonfly_med.training.learner import Learner
from dragonfly_med.training.sequences import SequenceMaker

ONE_MASK = "one-masked-product"
EXCHANGE = Exchange("Is there any necrosis in the picture?", "Yes")


def with_one_mask(module, query, key, value, attention_mask, **rest):
    """The attention that the packed one is compared with: PyTorch's, with the whole mask of image and text."""
    image = query.shape[2] - attention_mask.shape[2]
    causal = torch.ones(query.shape[2], query.shape[2], dtype=torch.bool).tril().expand(len(query), 1, -1, -1)
    mask = torch.cat([causal[:, :, :image], attention_mask], dim=2)
    return sdpa_attention_forward(module, query, key, value, mask, **rest)


AttentionInterface.register(ONE_MASK, with_one_mask)


def step_seconds(learner: Learner, batches: list[dict[str, torch.Tensor]]) -> float:
    started = time.process_time()
    for batch in batches:
        learner(**batch)["loss"].backward()
    learner.zero_grad()
    return time.process_time() - started


def new_learner(folder: Path, attention: str | None = None, mixed: bool = False) -> Learner:
    network = DragonflyForCausalLM.from_pretrained(folder, dtype=torch.float32)
    network.image_encoder.requires_grad_(False)
    learner = Learner(network, DragonflyProcessor.from_pretrained(folder), mixed).train()
    if attention:
        network.language_model.set_attn_implementation(attention)
    return learner


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--questions", type=int, default=18)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    folder = Path(dragonfly_med.__file__).parent / "demo"
    maker = SequenceMaker(DragonflyProcessor.from_pretrained(folder), Teaching())
    shown = new_learner(folder).network.config.vision_config
    tokens = 1 + (shown.image_size // shown.patch_size) ** 2
    features = torch.randn(29, tokens, shown.hidden_size, generator=torch.Generator().manual_seed(0))
    together = [maker.batch([Sample([[EXCHANGE]] * options.questions, features=features)])]
    apart = [maker.batch([Sample([[EXCHANGE]], features=features)])] * options.questions
    cases = {
        "packed": (new_learner(folder), together),
        "one by one": (new_learner(folder), apart),
        "packed, in bfloat16": (new_learner(folder, mixed=True), together),
        "packed, one masked product": (new_learner(folder, ONE_MASK), together),
    }
    with torch.no_grad():
        losses = {name: float(learner(**batches[0])["loss"]) for name, (learner, batches) in cases.items()}
    exact = [loss for name, loss in losses.items() if "bfloat16" not in name]
    seconds: dict[str, float] = {}
    for _ in range(options.rounds):
        for name, (learner, batches) in cases.items():
            seconds[name] = min(seconds.get(name, float("inf")), step_seconds(learner, batches))
    for name, taken in seconds.items():
        print(
            f"{name}: {taken:.2f} s of processor time for {options.questions} questions, "
            f"{taken / seconds['packed']:.2f} times that of packed"
        )
    return 0 if max(exact) - min(exact) < 1e-4 else 1


if __name__ == "__main__":
    sys.exit(main())
