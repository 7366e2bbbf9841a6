"""Answers of the real ``dragonfly batch`` command to questions about pictures, and the pictures blanked."""

import csv
from collections.abc import Sequence
from pathlib import Path

from PIL import Image
from typer.testing import CliRunner

from dragonfly_cli.main import app


def ask_batch(
    checkpoint: Path, pictures: Sequence[Path], questions: Sequence[str], work: Path
) -> dict[tuple[str, str], str]:
    """(name of the picture's file, question) -> answer.

    Raises:
        RuntimeError: the command failed, or left a question without an answer.
    """
    work.mkdir(parents=True, exist_ok=True)
    table = work / "answers.csv"
    for left in work.glob("answers*"):
        left.unlink()
    asked = work / "questions.txt"
    asked.write_text("\n".join(questions) + "\n", encoding="utf-8")
    options = ["--questions", str(asked), "--model", str(checkpoint), "--device", "cpu", "--max-tokens", "24"]
    result = CliRunner().invoke(app, ["batch", *map(str, pictures), "-o", str(table), *options])
    with table.open(newline="", encoding="utf-8") as lines:
        rows = list(csv.DictReader(lines))
    if result.exit_code or len(rows) != len(pictures) * len(questions):
        raise RuntimeError(f"dragonfly batch: exit code {result.exit_code}, {len(rows)} rows: {result.stderr[-500:]}")
    return {(Path(row["image"]).name, row["question"]): row["answer"] for row in rows}


def blank(picture: Image.Image) -> Image.Image:
    """A picture of the same size in one colour, the mean of its own."""
    return picture.resize((1, 1), Image.Resampling.BOX).resize(picture.size, Image.Resampling.NEAREST)
