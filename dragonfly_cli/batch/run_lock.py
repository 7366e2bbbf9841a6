"""One run at a time on one table, also between machines that share a disk."""

import os
import socket
from pathlib import Path
from typing import Self

from filelock import FileLock, Timeout

from dragonfly_cli.batch.row_file import unwritable
from dragonfly_cli.errors import OutputError
from dragonfly_cli.output.files import check_writable


class RunLock:
    """Held while a run goes on; raises OutputError, naming process and machine, if another one holds it.

    The operating system frees it when its process ends, however that ends.
    """

    def __init__(self, output: Path) -> None:
        self._output = output
        self._lock = FileLock(output.with_name(f".{output.name}.lock"))
        # Who it is stands in a file of its own, as a lock file is emptied by whoever tries it.
        self._holder = output.with_name(f".{output.name}.holder")

    def __enter__(self) -> Self:
        check_writable(self._output)
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise OutputError(
                f"cannot write {self._output}: another run is writing it{self._by_whom()}",
                "wait until it has finished, or choose another --output",
            ) from None
        except OSError as error:
            raise unwritable(self._output, error) from error
        try:
            self._holder.write_text(f"process {os.getpid()} on {socket.gethostname()}", encoding="utf-8")
        except OSError as error:
            self.__exit__()
            raise unwritable(self._output, error) from error
        return self

    def __exit__(self, *_: object) -> None:
        self._holder.unlink(missing_ok=True)
        self._lock.release()

    def _by_whom(self) -> str:
        try:
            return f" ({self._holder.read_text(encoding='utf-8')})"
        except OSError:
            return ""
