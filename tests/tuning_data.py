"""Pictures and rows to learn from, and the real ``dragonfly finetune`` on a tiny checkpoint."""

import json
from pathlib import Path
from typing import Any

import numpy as np
from make_files import GOLDEN
from PIL import Image
from run_dragonfly import Outcome, dragonfly

TINY = GOLDEN / "v1" / "checkpoint"
QUESTION = "Is it striped?"
FAST = ("--batch", "2", "--accumulate", "1", "--device", "cpu")


def pattern(striped: bool, seed: int) -> np.ndarray:
    """Green stripes or red dots, [96, 96, 3] uint8."""
    pixels = np.full((96, 96, 3), 235)
    if striped:
        pixels[:, ::8] = (20, 90, 20)
    else:
        pixels[::6, ::6] = (160, 20, 20)
    noise = np.random.default_rng(seed).integers(-6, 7, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def taught(number: int, **more: Any) -> dict[str, Any]:
    answer = "Yes" if number % 2 else "No"
    return {"image": f"{number}.png", "question": QUESTION, "answer": answer, **more}


def make_data(folder: Path) -> Path:
    """Twelve pictures 0.png to 11.png, the odd ones striped, and a file of rows about ten of them."""
    for number in range(12):
        Image.fromarray(pattern(bool(number % 2), number)).save(folder / f"{number}.png")
    write_rows(folder / "rows.jsonl", [taught(number, split="val" if number < 2 else "train") for number in range(10)])
    return folder


def finetune(data: Path, output: Path, *arguments: str | Path, model: Path | str = TINY) -> Outcome:
    return dragonfly("finetune", data, "-o", output, "--model", model, *FAST, *arguments)


def record_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "training.json").read_text())
