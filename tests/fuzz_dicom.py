"""Breaks real DICOM files, a bounded and seeded number of times, and opens them: only our own errors may come out.

    python tests/fuzz_dicom.py EXAMPLES SEED

A process of its own, because what is tested is also that no decoder ends it, that memory stays below ``MEMORY_BYTES``
and time below ``CPU_SECONDS``. Prints how many examples were shown and how many refused; any other error is raised.
"""

import contextlib
import resource
import sys
import tempfile
from collections import Counter
from pathlib import Path

import numpy as np
import pydicom
from hypothesis import HealthCheck, Phase, given, seed, settings
from hypothesis import strategies as st

from dragonfly_cli.errors import DragonflyError
from dragonfly_cli.geometry import Box
from dragonfly_cli.output.record import source_info
from dragonfly_cli.readers import open_source

MEMORY_BYTES = 3 * 2**30
CPU_SECONDS = 500
LARGEST_FILE_BYTES = 200_000
FILES = Path(pydicom.__file__).parent / "data" / "test_files"
WORDS = (b"\0\0", b"\xff\xff", b"\xff\xff\xff\xff", b"\x7f\xff", b"\xfe\xff\xdd\xe0", b"SQ\0\0", b"UN\0\0", b"\\", b"^")
seen: Counter[str] = Counter()


def originals() -> list[bytes]:
    """Small real files of every transfer syntax."""
    contents = (path.read_bytes() for path in sorted(FILES.glob("*.dcm")) if path.stat().st_size < LARGEST_FILE_BYTES)
    return [content for content in contents if content[128:132] == b"DICM" or len(content) > 1000]


@st.composite
def broken_files(draw: st.DrawFn) -> bytes:
    """One real file with up to four changes, most of them in its header, and perhaps cut."""
    content = bytearray(draw(st.sampled_from(originals_once)))
    for _ in range(draw(st.integers(1, 4))):
        at = draw(st.integers(0, min(len(content), draw(st.sampled_from((400, 3000, 10**9)))) - 1))
        kind = draw(st.sampled_from(("flip", "word", "drop", "swap")))
        if kind == "flip":
            content[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "word":
            word = draw(st.sampled_from(WORDS))
            content[at : at + len(word)] = word
        elif kind == "drop":
            del content[at : at + draw(st.integers(1, 40))]
        else:
            other = draw(st.sampled_from(originals_once))
            content[at : at + 64] = other[at : at + 64]
    if draw(st.integers(0, 7)) == 0:
        del content[draw(st.integers(0, len(content))) :]
    return bytes(content) or b"\0"


def open_and_look(path: Path) -> None:
    with contextlib.closing(open_source(path)) as source:
        source_info(source)
        for frame in {0, source.frames - 1}:
            shown = np.asarray(source.view(Box(0, 0, *source.size_wh), frame))
            assert shown.dtype == np.uint8 and shown.shape == (*source.size_wh[::-1], 3)
        source_info(source)


originals_once = originals()


def main(examples: int, number: int) -> None:
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY_BYTES, MEMORY_BYTES))
    resource.setrlimit(resource.RLIMIT_CPU, (CPU_SECONDS, CPU_SECONDS))
    with tempfile.TemporaryDirectory() as folder:

        @seed(number)
        @settings(
            max_examples=examples,
            deadline=None,
            database=None,
            phases=(Phase.generate,),  # a failure is shown as it was found
            suppress_health_check=list(HealthCheck),
        )
        @given(broken_files())
        def every_example(content: bytes) -> None:
            path = Path(folder, "study", "broken.dcm")
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
            for what in (path, path.parent):
                try:
                    open_and_look(what)
                    seen["shown"] += 1
                except DragonflyError:
                    seen["refused"] += 1

        every_example()
    print(f"shown {seen['shown']}, refused {seen['refused']}")


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
