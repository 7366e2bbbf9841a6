"""The whole sequence, from data to checkpoint, and a record of what it was made with.

    PYTHONPATH=.:models python -m demo_training.make_demo DATA WORK OUT

run in the repository's root. Every stage is a program of its own and leaves its files in WORK; a stage whose file is
there already is passed over, so that an interrupted run goes on where it stopped. record.json in WORK names seeds,
minutes, versions, and hashes of the data and of the checkpoint.
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


@dataclass(frozen=True)
class Stage:
    """One program: its arguments, and the file that it leaves in WORK."""

    program: str
    arguments: tuple[str, ...]
    leaves: str


def stages(data: Path, work: Path, out: Path) -> list[Stage]:
    """In order, with the shipped checkpoint's minutes; its own stages 1, 5 and 6 were run in parts."""
    d, w = str(data), f"{work}/"
    rows, generated = w + "rows", w + "generated"
    return [
        Stage("draw_tissue", (generated, "--seed", "0"), "generated/generated.csv"),
        Stage("train_teacher", (d, generated, w + "teacher.pt", "--minutes", "30", "--seed", "1"), "teacher.pt"),
        Stage(
            "distill_encoder",
            (d, generated, w + "teacher.pt", w + "encoder.pt", "--minutes", "20", "--seed", "2"),
            "encoder.pt",
        ),
        Stage("make_rows", (d, generated, rows, "--seed", "3"), "rows/rows.jsonl"),
        Stage("make_tokenizer", (rows + "/rows.jsonl", w + "tokenizer"), "tokenizer/tokenizer.json"),
        Stage("encode_features", (w + "encoder.pt", rows, w + "features.pt"), "features.pt"),
        Stage(
            "train_language",
            (w + "encoder.pt", rows, w + "features.pt", w + "tokenizer", w + "language.pt", "--minutes", "34"),
            "language.pt",
        ),
        Stage("export", (w + "language.pt", w + "tokenizer", w + "unfinished"), "unfinished/model.safetensors"),
        Stage(
            "finish_language",
            (
                w + "unfinished",
                w + "language.pt",
                rows,
                w + "features.pt",
                w + "core",
                w + "finished.pt",
                "--steps",
                "850",
            ),
            "finished.pt",
        ),
        Stage("export", (w + "finished.pt", w + "tokenizer", str(out)), "exported"),
    ]


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
    options = parser.parse_args()
    options.work.mkdir(parents=True, exist_ok=True)
    done = [(stage, run(stage, options.work)) for stage in stages(options.data, options.work, options.out)]
    text = json.dumps(record(options.data, options.out, done), indent=2)
    (options.work / "record.json").write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
