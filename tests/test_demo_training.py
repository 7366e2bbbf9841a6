"""How the built-in model's training goes: several processes that learn as one, and batches of few lengths."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tokenizers import Tokenizer

import dragonfly_med
from demo_training.sequences import LENGTHS_APART, PADDING_BLOCK, collate, question_blocks
from dragonfly_med.training import Exchange

LEARN = """
import json, sys
import torch
from demo_training import parallel
from demo_training.schedule import Clock, step
process = parallel.join()
processes = int(sys.argv[1])
torch.manual_seed(process)
model = torch.nn.Linear(6, 1)
parallel.share_weights(model)
optimizers = [torch.optim.SGD([{"params": list(model.parameters()), "peak": 0.5}])]
inputs = torch.arange(48.0).view(8, 6) / 48
own = inputs.chunk(processes)[process]
clock = Clock(1000 * (process + 1))
for number in range(3):
    step(optimizers, (model(own) - own.sum(1, keepdim=True)).square().mean(), 0.5)
told = {"weights": [p.flatten().tolist() for p in model.parameters()], "done": clock.read()}
open(f"{sys.argv[2]}/{process}.json", "w").write(json.dumps(told))
"""


def learn(folder: Path, processes: int) -> list[dict]:
    script = folder / "learn.py"
    script.write_text(LEARN, encoding="utf-8")
    launch = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(processes)]
    command = [sys.executable, *(launch if processes > 1 else []), str(script), str(processes), str(folder)]
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[1] / "models")}
    subprocess.run(command, check=True, env=environment, capture_output=True, timeout=120)
    return [json.loads((folder / f"{process}.json").read_text()) for process in range(processes)]


@pytest.mark.slow
def test_two_processes_with_half_the_batch_each_learn_what_one_with_all_of_it_does(tmp_path):
    (alone,) = learn(tmp_path, 1)
    first, second = learn(tmp_path, 2)
    assert first["weights"] == second["weights"]
    assert first["done"] == second["done"]  # though one clock runs half as fast
    for mine, theirs in zip(first["weights"], alone["weights"], strict=True):
        assert mine == pytest.approx(theirs, abs=1e-6)


def test_batches_come_in_few_lengths_and_what_fills_them_up_weighs_nothing():
    tokenizer = Tokenizer.from_file(str(Path(dragonfly_med.__file__).parent / "demo" / "tokenizer.json"))
    asked = [Exchange("Is there necrosis?", "No"), Exchange("Which organ is this?", "Lung")]
    blocks = question_blocks(asked, tokenizer)
    batch = collate([blocks, blocks[:1]])
    assert batch.ids.shape == (2, LENGTHS_APART)
    for row, own in enumerate([blocks, blocks[:1]]):
        length = sum(len(block.ids) for block in own)
        assert batch.ids[row, :length].tolist() == [i for block in own for i in block.ids]
        assert batch.weights[row, length:].abs().sum() == 0
        assert torch.all(batch.blocks[row, length:] == PADDING_BLOCK)
