"""How a folder run compares with what it is made of, as ratios of things run side by side on this machine.

    python benchmarks/batch.py asks     [--images 64] [--questions 1]
                                                          a batch beside single asks, in one process and in one each
    python benchmarks/batch.py stages   [--images 64]     a batch beside its slowest stage alone
    python benchmarks/batch.py many     [--images 10000]  time per file and memory beside those of a tenth of the files
    python benchmarks/batch.py resume   [--images 10000]  taking up a finished run beside taking up one of one file
    python benchmarks/batch.py workers  [--images 64]     two processes, and two Ray actors, beside one; all warm
    python benchmarks/batch.py evidence [--images 64]     a batch that draws where it looked beside one that does not

The built-in model, or another one (``--model``, ``tiny`` for the smallest there is), answers one yes/no question, or in
``asks`` as many as are asked for, about synthetic pictures of mixed size; in ``many`` they are small, and in ``resume``
unreadable, so that a finished table of any length is quickly made. The smaller the network, the more of the time is the
program's own. ``many`` also tells time on the processor, which other programs do not count into. Targets: at least 2
and 20; at most 1.15; within 5 % and flat; below 2 s; at least 1.7.
"""

import argparse
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

ROOT = Path(__file__).parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "models")]  # measure this checkout, whatever is installed

QUESTION = "Is there a tumour?"
QUESTIONS = (QUESTION, *(f"Is there {finding}?" for finding in ("necrosis", "a fracture", "an effusion", "fibrosis")))
MIXED_WH = ((320, 240), (640, 480), (1024, 768), (1600, 1200), (2048, 1536))
SMALL_WH = ((64, 48),)
WARM_UP = 4
ROUNDS = 4


def write_images(folder: Path, count: int, sizes: tuple[tuple[int, int], ...]) -> list[Path]:
    folder.mkdir()
    random = np.random.default_rng(0)
    paths = []
    for number in range(count):
        coarse = Image.fromarray(random.integers(0, 256, (12, 16, 3), np.uint8))
        paths.append(folder / f"{number:05}.png")
        coarse.resize(sizes[number % len(sizes)]).save(paths[-1])
    return paths


def write_tiny_network(folder: Path) -> str:
    """The tests' network with crops of 56 pixels, which answers at random and at once."""
    from safetensors.torch import load_file, save_file

    shutil.copytree(ROOT / "tests" / "golden" / "v1" / "checkpoint", folder)
    shape = folder / "image_encoder" / "config.json"
    settings = json.loads(shape.read_text())
    settings["vision_config"] |= {"image_size": 56, "patch_size": 8}
    shape.write_text(json.dumps(settings))
    weights = load_file(folder / "model.safetensors")
    (name,) = (name for name in weights if name.endswith("patch_embedding.weight"))
    weights[name] = weights[name][:, :, :8, :8].contiguous()
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    return str(folder)


def command(*arguments: object) -> list[str]:
    return [str(argument) for argument in arguments]


def in_process(arguments: list[str]) -> None:
    from typer.testing import CliRunner

    from dragonfly_cli.main import app

    code = CliRunner().invoke(app, arguments, catch_exceptions=False).exit_code
    if code:
        raise SystemExit(f"dragonfly {' '.join(arguments)} ended with {code}")


def in_own_process(arguments: list[str]) -> tuple[float, float, int]:
    """Seconds, seconds of processor time, and the peak memory in bytes."""
    report = "print(time.process_time(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)"
    program = (
        f"import resource, sys, time\nfrom dragonfly_cli.main import app\ntry: app(sys.argv[1:])\nfinally: {report}"
    )
    started = time.perf_counter()
    done = subprocess.run([sys.executable, "-c", program, *arguments], capture_output=True, text=True, cwd=ROOT)
    elapsed = time.perf_counter() - started
    busy, peak = done.stdout.split()[-2:]
    return elapsed, float(busy), int(peak) * (1 if sys.platform == "darwin" else 1024)


def seconds(work: Callable[..., object], *arguments: object) -> float:
    started = time.perf_counter()
    work(*arguments)
    return time.perf_counter() - started


def batch(source: Path, output: Path, model: str, questions: tuple[str, ...] = (QUESTION,)) -> list[str]:
    asked = [word for question in questions for word in ("-q", question)]
    return command("batch", source, *asked, "-o", output, "-m", model, "--device", "cpu")


def compare_asks(folder: Path, count: int, model: str, questions: int = 1) -> None:
    """Of several questions the batch reads and encodes an image once, a single ask for each."""
    images = write_images(folder / "images", count, MIXED_WH)
    asked = QUESTIONS[:questions]
    asks = [command("ask", image, each, "-m", model, "--device", "cpu") for image in images for each in asked]
    in_process(asks[0])  # imports
    together = seconds(in_process, batch(folder / "images", folder / "answers.csv", model, asked))
    singly = sum(seconds(in_process, ask) for ask in asks)
    some = asks[:: max(1, len(asks) // 5)][:5]
    each = statistics.median(in_own_process(ask)[0] for ask in some)
    print(f"batch of {count} images, questions of each {questions}: {together:.1f} s", end="; ")
    print(f"asks in one process {singly:.1f} s: {singly / together:.2f} times")
    print(f"one process each, {each:.1f} s an ask: {each * len(asks) / together:.1f} times")


def worker_and_items(images: list[Path], model: str, evidence: Path | None = None) -> tuple[Any, list[Any]]:
    from dragonfly_cli.batch.items import find_items
    from dragonfly_cli.batch.options import BatchOptions, FileOptions, SelectOptions, StopOptions, WorkOptions
    from dragonfly_cli.batch.worker import Worker
    from dragonfly_cli.options import FormOptions, LookOptions, OpenOptions

    asked = replace(job(model), evidence=evidence)
    chosen = FormOptions(), OpenOptions(), LookOptions(), asked.answering
    options = BatchOptions(FileOptions(Path("unused.csv")), *chosen, SelectOptions(), StopOptions(), WorkOptions())
    return Worker(asked), find_items(images, asked.questions, options)


def job(model: str) -> Any:
    from dragonfly_cli.batch.job import Job
    from dragonfly_cli.engine.checkpoints import find_checkpoint
    from dragonfly_cli.engine.questions import as_question
    from dragonfly_cli.options import AnswerOptions

    return Job(find_checkpoint(model), [as_question(QUESTION)], AnswerOptions(model=model, device="cpu"))


def compare_stages(folder: Path, count: int, model: str) -> None:
    from dragonfly_cli.batch.groups import grouped

    worker, items = worker_and_items(write_images(folder / "images", count, MIXED_WH), model)
    for item in items[:WARM_UP]:
        worker.answer(item)
    reading = answering = 0.0
    for group in grouped(items, 1):
        started = time.perf_counter()
        opened = [worker.read_now(item) for item in group.items]
        read = time.perf_counter()
        for asked in worker.ask(group, opened):
            worker.finish(asked)
        reading += read - started
        answering += time.perf_counter() - read
    wall = seconds(run_through, worker, items)
    ratio = wall / max(reading, answering)
    print(f"reading {reading:.1f} s, answering {answering:.1f} s, a batch {wall:.1f} s: {ratio:.2f} of the slower")


def run_through(worker: Any, items: list[Any]) -> None:
    from dragonfly_cli.batch.groups import grouped

    remaining = iter(grouped(items, 1))
    for _ in worker.answers(lambda wait: next(remaining, None)):
        pass


def compare_evidence(folder: Path, count: int, model: str) -> None:
    images = write_images(folder / "images", count, MIXED_WH)
    (folder / "evidence").mkdir()
    plain, items = worker_and_items(images, model)
    drawing, _ = worker_and_items(images, model, folder / "evidence")
    taken: dict[str, list[float]] = {"plain": [], "drawing": [], "in turn": []}
    run_through(drawing, items[:WARM_UP])
    for some in (items[start::ROUNDS] for start in range(ROUNDS)):
        taken["plain"].append(seconds(run_through, plain, some))
        taken["drawing"].append(seconds(run_through, drawing, some))
        started = time.perf_counter()
        for item in some:
            drawing.answer(item)
        taken["in turn"].append(time.perf_counter() - started)
    alone = sum(taken["plain"])
    print(f"with evidence {sum(taken['drawing']) / alone:.2f} of the time without; nothing beside the network", end=" ")
    print(f"{sum(taken['in turn']) / alone:.2f}")


def compare_many(folder: Path, count: int, model: str) -> None:
    results = {}
    for files in (max(1, count // 10), count):
        write_images(folder / f"images{files}", files, SMALL_WH)
        one = folder / f"images{files}" / "00000.png"
        *starts, _ = in_own_process(batch(one, folder / f"one{files}.csv", model))
        *takes, peak = in_own_process(batch(folder / f"images{files}", folder / f"answers{files}.csv", model))
        took, busy = ((whole - start) / max(1, files - 1) for whole, start in zip(takes, starts, strict=True))
        results[files] = took, busy, peak
        print(f"{files} files: {took * 1000:.1f} ms a file, {busy * 1000:.1f} of the processor, {peak / 1e6:.0f} MB")
    (less, less_busy, small_peak), (more, more_busy, large_peak) = results.values()
    print(f"time per file {more / less:.3f}, of the processor {more_busy / less_busy:.3f} of the tenth's")
    print(f"peak memory {large_peak / small_peak:.3f} of the tenth's")


def compare_resume(folder: Path, count: int, model: str) -> None:
    taken = {}
    for files in (1, count):
        source = folder / f"files{files}"
        source.mkdir()
        for number in range(files):
            (source / f"{number:05}.svs").write_bytes(b"II*\0 and then nothing")
        call = batch(source, folder / f"answers{files}.csv", model)
        first, _, _ = in_own_process(call)
        again = [in_own_process(call) for _ in range(2)]
        taken[files] = [min(each[kind] for each in again) for kind in (0, 1)]
        print(f"{files} files: first run {first:.1f} s, taken up again in {taken[files][0]:.2f} s")
    elapsed, busy = (more - less for more, less in zip(taken[count], taken[1], strict=True))
    print(f"{count} files take {elapsed:.2f} s beyond start-up, {busy:.2f} s of the processor")


@contextmanager
def warm(workers: Any, items: list[Any]) -> Iterator[Any]:
    with workers:
        drain(workers, items[:WARM_UP])
        yield workers


def drain(workers: Any, items: list[Any]) -> None:
    from dragonfly_cli.batch.groups import grouped

    for _ in workers.answers(grouped(items, 1)):
        pass


def compare_workers(folder: Path, count: int, model: str) -> None:
    _, items = worker_and_items(write_images(folder / "images", count, MIXED_WH), model)
    for kind in ("processes", "ray") if find_spec("ray") else ("processes",):
        took = {}
        for number in (1, 2):
            with warm(workers_of(kind, number, model), items) as workers:
                took[number] = seconds(drain, workers, items)
        print(f"{kind}: one worker {took[1]:.1f} s, two {took[2]:.1f} s: {took[1] / took[2]:.2f} times")


def workers_of(kind: str, count: int, model: str) -> Any:
    """A single one is a process of its own too."""

    def never() -> bool:
        return False

    if kind == "ray":
        from dragonfly_cli.batch.on_ray import RayActors

        return RayActors(job(model), count, None, never)
    from dragonfly_cli.batch.processes import Processes

    return Processes(job(model), count, never)


COMPARISONS = {
    "asks": (compare_asks, 64),
    "stages": (compare_stages, 64),
    "many": (compare_many, 10_000),
    "resume": (compare_resume, 10_000),
    "evidence": (compare_evidence, 64),
    "workers": (compare_workers, 64),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=tuple(COMPARISONS))
    parser.add_argument("--images", type=int)
    parser.add_argument("--model", default="demo")
    parser.add_argument("--questions", type=int, default=1, choices=range(1, len(QUESTIONS) + 1))
    options = parser.parse_args()
    from dragonfly_cli.process import begin_process

    begin_process()
    compare, usual = COMPARISONS[options.what]
    if options.questions > 1:
        if options.what != "asks":
            parser.error(f"--questions is of asks alone, and this is {options.what}")
        compare = partial(compare_asks, questions=options.questions)
    with tempfile.TemporaryDirectory() as folder:
        model = write_tiny_network(Path(folder, "tiny")) if options.model == "tiny" else options.model
        compare(Path(folder), options.images or usual, model)


if __name__ == "__main__":
    main()
