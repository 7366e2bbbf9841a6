"""What the tests of ``batch`` have in common: a small study, and tables without what differs from run to run."""

import codecs
import csv
import os
import re
import resource
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
from make_files import GOLDEN, write_dicom, write_png

from dragonfly_cli.batch.items import Item
from dragonfly_cli.options import LookOptions, OpenOptions
from dragonfly_cli.readers import Source
from dragonfly_cli.readers.inputs import Input

# A tiny network with the published shape: what it says does not matter here, and it says it ten times as fast.
TINY = GOLDEN / "v1" / "checkpoint"
QUESTIONS = ("-q", "Is there a tumour?", "-q", 'What is it, "roughly"?', "--max-tokens", "3", "-m", str(TINY))
_SECONDS = re.compile(rb",\d+\.\d{3},")  # the only cell with three decimals
_TIMING = re.compile(rb'"timing": \{[^}]*\}')


def write_study(folder: Path, images: int = 4) -> Path:
    """Pictures of different colours, a film of three frames, and a broken slide in the middle."""
    folder.mkdir()
    for number in range(images):
        write_png(folder / f"{number:03}.png", (60 + number, 40), f"rgb({number * 50 % 256}, 80, 200)")
    write_dicom(folder / "film.dcm", np.random.default_rng(0).integers(0, 200, (3, 40, 50), np.uint8))
    (folder / "001-broken.svs").write_bytes(b"II*\0 and then nothing")
    return folder


def items_named(count: int) -> list[Item]:
    """Items of images that are not there."""

    def never(options: OpenOptions) -> Source:
        raise AssertionError("it was opened")

    return [Item(Input(f"{number}.png", never), (), OpenOptions(), LookOptions()) for number in range(count)]


def rows_of(path: Path) -> list[dict[str, str]]:
    with path.open(encoding="utf-8", newline="") as file:
        return [{key: value for key, value in row.items() if key != "seconds"} for row in csv.DictReader(file)]


def bytes_of(path: Path) -> bytes:
    """The file, but for how long things took."""
    return _TIMING.sub(b'"timing": {}', _SECONDS.sub(b",0.000,", path.read_bytes()))


def start(*arguments: str | Path) -> "subprocess.Popen[str]":
    """``dragonfly ARGUMENTS...`` in a process of its own, and a group of its own as under a shell; stderr is a pipe."""
    command = [sys.executable, "-m", "dragonfly_cli", *map(str, arguments)]
    quiet = os.environ | {"OMP_NUM_THREADS": "1"}
    streams = {"stderr": subprocess.PIPE, "stdout": subprocess.DEVNULL}
    return subprocess.Popen(command, **streams, text=True, env=quiet, process_group=0)


def wait_for(process: "subprocess.Popen[str]", words: str) -> None:
    """Reads stderr until a line has ``words``."""
    assert process.stderr is not None
    for line in process.stderr:
        if words in line:
            return
    raise AssertionError(f"{words!r} was never said")


@contextmanager
def files_limited_to(size_bytes: int) -> Iterator[None]:
    """A disk that refuses: no file may grow beyond that size."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size_bytes, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)


@contextmanager
def may_not_write_everywhere() -> Iterator[None]:
    """As somebody else than root, who may."""
    if os.getuid() != 0:
        yield
        return
    codecs.lookup("utf-8-sig")  # Python's own files may be root's, and this one is loaded when it is first needed
    nobody = 65534
    os.setresuid(nobody, nobody, 0)
    try:
        yield
    finally:
        os.setresuid(0, 0, 0)
