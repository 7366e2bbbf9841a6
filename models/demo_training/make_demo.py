"""The whole sequence, from data to checkpoint, and a record of what it was made with.

    PYTHONPATH=.:models python -m demo_training.make_demo DATA WORK OUT [--start CHECKPOINT [--keep-encoder]]

run in the repository's root. Every stage is a program of its own and leaves its files in WORK; a stage whose file is
there already is passed over, so that an interrupted run goes on where it stopped. With --start encoder and language
model of an earlier checkpoint go on learning, which takes no teacher and less time; with --keep-encoder the language
model alone. record.json in WORK names seeds, minutes, versions, and hashes of the data and of the checkpoint.
"""

import argparse
import hashlib
import json
import os
import platform
import subprocess
import sys
import time
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

LIBRARIES = ("torch", "transformers", "tokenizers", "numpy", "pillow", "safetensors")
READ_AT_ONCE = 2**20
REFINING = ("--minutes", "27", "--rate", "4e-4", "--seed", "71")
FROM_NOTHING = ("--minutes", "34", "--seed", "44")
GOING_ON = ("--minutes", "38", "--begin", "0.5", "--rate", "1e-3", "--seed", "74")
FINISHING = ("--steps", "150", "--rate", "3e-4", "--seed", "56")


@dataclass(frozen=True)
class Stage:
    """One program: its arguments, and the file that it leaves in WORK."""

    program: str
    arguments: tuple[str, ...]
    leaves: str


@dataclass(frozen=True)
class Places:
    """Where things are: the data, what the stages leave, the new checkpoint, and the one that is gone on from."""

    data: Path
    work: Path
    out: Path
    start: Path | None
    keep_encoder: bool  # that of ``start`` as it is

    def left(self, name: str) -> str:
        return str(self.work / name)

    @property
    def encoder(self) -> str:
        return str(self.start) if self.keep_encoder else self.left("encoder.pt")

    @property
    def tokenizer(self) -> str:
        return str(self.start) if self.start is not None else self.left("tokenizer")


def encoder_stages(places: Places) -> list[Stage]:
    """Generated tissue, and an encoder that is learnt from nothing, goes on learning, or stays."""
    data, generated, left = str(places.data), places.left("generated"), places.left
    drawing = Stage("draw_tissue", (generated, "--seed", "70"), "generated/generated.csv")
    if places.keep_encoder:
        return [drawing]
    if places.start is not None:
        arguments = (data, generated, left("encoder.pt"), str(places.start), *REFINING)
        return [drawing, Stage("refine_encoder", arguments, "encoder.pt")]
    teacher, student = left("teacher.pt"), left("encoder.pt")
    return [
        drawing,
        Stage("train_teacher", (data, generated, teacher, "--minutes", "30", "--seed", "1"), "teacher.pt"),
        Stage("distill_encoder", (data, generated, teacher, student, "--minutes", "20", "--seed", "2"), "encoder.pt"),
    ]


def lesson_stages(places: Places) -> list[Stage]:
    """Pictures and questions, the tokenizer unless there is one, and the encoder's features."""
    rows, left = places.left("rows"), places.left
    making = Stage("make_rows", (str(places.data), left("generated"), rows, "--seed", "73"), "rows/rows.jsonl")
    words = Stage("make_tokenizer", (rows + "/rows.jsonl", places.tokenizer), "tokenizer/tokenizer.json")
    encoding = Stage("encode_features", (places.encoder, rows, left("features.pt")), "features.pt")
    return [making, encoding] if places.start is not None else [making, words, encoding]


def language_stages(places: Places) -> list[Stage]:
    """The language model, which goes on learning or begins from nothing and is finished, and the checkpoint."""
    left = places.left
    if places.start is not None:
        return [language_stage(places, "--start", str(places.start), *GOING_ON), export(places, "language.pt")]
    weights, lessons = (left("unfinished"), left("language.pt")), (left("rows"), left("features.pt"))
    finishing = (*weights, *lessons, left("core"), left("finished.pt"), *FINISHING)
    ends = left("language.pt"), left("finished.pt")
    return [
        language_stage(places, *FROM_NOTHING),
        Stage("export", (left("language.pt"), places.tokenizer, left("unfinished")), "unfinished/model.safetensors"),
        Stage("finish_language", finishing, "finished.pt"),
        Stage("average_weights", (*ends, left("mean.pt")), "mean.pt"),
        export(places, "mean.pt"),
    ]


def language_stage(places: Places, *arguments: str) -> Stage:
    """Stage 5."""
    given = places.encoder, places.left("rows"), places.left("features.pt")
    weights = "language.pt"
    return Stage("train_language", (*given, places.tokenizer, places.left(weights), *arguments), weights)


def export(places: Places, weights: str) -> Stage:
    """The last stage, which leaves nothing in WORK and is never passed over."""
    return Stage("export", (places.left(weights), places.tokenizer, str(places.out)), "exported")


def stages(places: Places) -> list[Stage]:
    """In order. Rates, seeds and minutes after --start are those of the shipped checkpoint's last round."""
    return encoder_stages(places) + lesson_stages(places) + language_stages(places)


def run(stage: Stage, work: Path) -> float:
    """Minutes that the stage took; 0 if its file was there."""
    if (work / stage.leaves).exists():
        return 0.0
    started = time.monotonic()
    print(f"== {stage.program} {' '.join(stage.arguments)}", flush=True)
    command = [sys.executable, "-m", f"demo_training.{stage.program}", *stage.arguments]
    # threads that wait for each other by spinning would slow a busy machine down
    subprocess.run(command, check=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"})
    return round((time.monotonic() - started) / 60, 1)


def file_hash(file: Path) -> str:
    digest = hashlib.sha256()
    with file.open("rb") as content:
        while chunk := content.read(READ_AT_ONCE):
            digest.update(chunk)
    return digest.hexdigest()


def folder_hash(folder: Path) -> str:
    """Of the names and contents of all files below, in the order of their names."""
    digest = hashlib.sha256()
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        digest.update(f"{file.relative_to(folder).as_posix()} {file_hash(file)}\n".encode())
    return digest.hexdigest()


def record(data: Path, out: Path, done: list[tuple[Stage, float]]) -> dict[str, Any]:
    return {
        "stages": [{"program": s.program, "arguments": s.arguments, "minutes": minutes} for s, minutes in done],
        "python": platform.python_version(),
        "machine": platform.machine(),
        "cores": os.cpu_count(),
        "versions": {name: version(name) for name in LIBRARIES},
        "data_sha256": {name: folder_hash(data / name) for name in ("train", "vqa/vqa_rad")},
        "checkpoint_sha256": {file.name: file_hash(file) for file in sorted(out.glob("*")) if file.is_file()},
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("work", type=Path, help="folder for what the stages leave")
    parser.add_argument("out", type=Path, help="the checkpoint folder")
    parser.add_argument("--start", type=Path, help="an earlier checkpoint folder to go on from")
    parser.add_argument("--keep-encoder", action="store_true", help="its language model alone goes on; with --start")
    options = parser.parse_args()
    if options.keep_encoder and options.start is None:
        parser.error("--keep-encoder goes with --start")
    options.work.mkdir(parents=True, exist_ok=True)
    places = Places(options.data, options.work, options.out, options.start, options.keep_encoder)
    done = [(stage, run(stage, places.work)) for stage in stages(places)]
    text = json.dumps(record(options.data, options.out, done), indent=2)
    (options.work / "record.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
