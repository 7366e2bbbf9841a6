"""The whole sequence, from data to checkpoint, and a record of what it was made with.

    PYTHONPATH=.:models python -m demo_training.make_demo DATA WORK OUT

run in the repository's root. Every stage is a program of its own and leaves its file in WORK. A stage that came to
its end is passed over, so that an interrupted run goes on where it stopped: minutes.json in WORK tells them.
record.json names seeds, minutes, versions, and hashes of the data and of the checkpoint.
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
PROCESSES = 2  # of the stages that several can share
MINUTES = "minutes.json"  # what a finished stage left -> how long it took


@dataclass(frozen=True)
class Stage:
    """One program: its arguments, and the file that it leaves in WORK; of the last one, the folder."""

    program: str
    arguments: tuple[str, ...]
    leaves: str
    processes: int = 1  # that learn as one


def stages(data: Path, work: Path, out: Path) -> list[Stage]:
    """In order."""

    def left(name: str) -> str:
        return str(work / name)

    generated, encoder, rows = left("generated"), left("encoder.pt"), left("rows")
    features, tokenizer, unfinished = left("features.pt"), left("tokenizer"), left("unfinished")
    language, finished, mean = left("language.pt"), left("finished.pt"), left("mean.pt")
    crops, lessons = (str(data), generated), (rows, features)
    learning = (encoder, *lessons, tokenizer, language, "--minutes", "36", "--seed", "104")
    finishing = (unfinished, language, *lessons, left("core"), finished, "--steps", "400", "--rate", "5e-4")
    return [
        Stage("draw_tissue", (generated, "--seed", "70"), "generated/generated.csv"),
        Stage("train_encoder", (*crops, encoder, "--minutes", "60", "--seed", "101"), "encoder.pt", PROCESSES),
        Stage("make_rows", (*crops, rows, "--seed", "93"), "rows/rows.jsonl"),
        Stage("make_tokenizer", (rows + "/rows.jsonl", tokenizer), "tokenizer/tokenizer.json"),
        Stage("encode_features", (encoder, *lessons), "features.pt"),
        Stage("train_language", learning, "language.pt", PROCESSES),
        Stage("export", (language, tokenizer, unfinished), "unfinished/model.safetensors"),
        Stage("finish_language", (*finishing, "--seed", "106"), "finished.pt"),
        Stage("average_weights", (language, finished, mean), "mean.pt"),
        Stage("export", (mean, tokenizer, str(out)), str(out)),
    ]


def run(stage: Stage, work: Path) -> float:
    """Minutes that the stage took, now or when it was run before."""
    record = work / MINUTES
    finished: dict[str, float] = json.loads(record.read_text(encoding="utf-8")) if record.exists() else {}
    if stage.leaves in finished:
        return finished[stage.leaves]
    started = time.monotonic()
    print(f"== {stage.program} {' '.join(stage.arguments)}", flush=True)
    command = [sys.executable, "-m", *launcher(stage.processes), f"demo_training.{stage.program}", *stage.arguments]
    # threads that wait for each other by spinning would slow a busy machine down
    subprocess.run(command, check=True, env=os.environ | {"OMP_WAIT_POLICY": "passive"})
    finished[stage.leaves] = round((time.monotonic() - started) / 60, 1)
    record.write_text(json.dumps(finished, indent=2) + "\n", encoding="utf-8")
    return finished[stage.leaves]


def launcher(processes: int) -> list[str]:
    """What comes before the program's name where several processes run it."""
    if processes == 1:
        return []
    return ["torch.distributed.run", "--standalone", "--nproc-per-node", str(processes), "-m"]


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
