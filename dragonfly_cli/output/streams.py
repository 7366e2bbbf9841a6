"""stdout and stderr as the program finds them: in another encoding, closed, full, or without a reader.

What stderr does not take is lost, and results are still written; a result that cannot be written is an error.
"""

import io
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TextIO

from dragonfly_cli.errors import OutputError, UsageError


def occupy_closed() -> None:
    """Opens closed streams onto nothing: else a table could get the number of stderr, and what is printed there."""
    for number in (0, 1, 2):
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # takes the lowest number that is free
    if sys.stdin is None:
        sys.stdin = open(0, closefd=False)  # noqa: SIM115 - from which nothing can be read then


def settle() -> None:
    """A buffer for stdout, a stderr of its own, and UTF-8 for files and pipes, whatever the platform.

    A terminal keeps its own encoding, with escapes for what it lacks.
    """
    _buffer_stdout()
    _part_stderr()
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(encoding=stream.encoding if stream.isatty() else "utf-8", errors="backslashreplace")


def _buffer_stdout() -> None:
    """Where PYTHONUNBUFFERED leaves stdout without a buffer, Python would lose what a full disk does not take."""
    if isinstance(sys.stdout, io.TextIOWrapper) and isinstance(sys.stdout.buffer, io.RawIOBase):
        encoding = sys.stdout.encoding
        sys.stdout = io.TextIOWrapper(io.BufferedWriter(sys.stdout.detach()), encoding, write_through=True)


def _part_stderr() -> None:
    """Away from descriptor 2, which is closed to all of the process while a decoder may write onto it.

    Without a buffer, which would refuse what is said of an interrupt that comes in the middle of another line.
    """
    if isinstance(sys.stderr, io.TextIOWrapper):
        encoding, unbuffered = sys.stderr.encoding, os.fdopen(os.dup(2), "wb", 0)
        sys.stderr = io.TextIOWrapper(unbuffered, encoding, write_through=True)


def write_result(text: str) -> None:
    """Onto stdout, at once. Raises OutputError where it takes no more, BrokenPipeError where nobody reads."""
    with _open_stdout() as stdout:
        stdout.write(text)


def write_bytes(content: bytes) -> None:
    """The same for what is no text."""
    with _open_stdout() as stdout:
        stdout.buffer.write(content)


def check_no_terminal() -> None:
    """Raises UsageError where stdout is a terminal, which would take a picture for text."""
    if sys.stdout is not None and sys.stdout.isatty():
        raise UsageError("--output -: a terminal cannot show a picture", "give a file name, or send it into a pipe")


@contextmanager
def _open_stdout() -> Iterator[TextIO]:
    if sys.stdout is None:
        raise _lost("it is closed")
    try:
        yield sys.stdout
        sys.stdout.flush()
    except BrokenPipeError:
        raise
    except OSError as error:
        discard(sys.stdout)
        raise _lost(error.strerror or "it was refused") from error


def tell(line: str) -> None:
    """One line onto stderr, if that takes it."""
    if sys.stderr is None:
        return
    try:
        sys.stderr.write(line + "\n")  # at once, as other threads and processes write there, too
        sys.stderr.flush()
    except OSError:
        discard(sys.stderr)


def discard(stream: TextIO | None) -> None:
    """Sends what is still buffered nowhere, since Python would complain when it flushes the stream at exit."""
    if stream is not None:
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())


def _lost(why: str) -> OutputError:
    return OutputError(f"cannot write to stdout: {why}", "write to a file with --output, or make room for stdout")
