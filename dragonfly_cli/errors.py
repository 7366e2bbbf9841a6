"""Every error a user may meet, with its exit code and its remedy.

One base class, and for each exit code of the command line's contract a subclass, some with cases of their own. An error
is shown as two lines, ``error: what, which file, why`` and ``hint: what to do``. File names may appear in them, patient
data never. This module imports nothing of the program, so that any other may import it.
"""

import traceback
from pathlib import Path
from typing import Any, Self

# Exit codes that come from no error, or not from one alone.
BUG_CODE = 1
SOME_FAILED_CODE = 8  # a batch came to its end, and some of its rows failed
INTERRUPTED_CODE = 130


class DragonflyError(Exception):
    """An expected failure: ``message`` says what, which file and why; ``hint`` says what to do."""

    exit_code = BUG_CODE

    def __init__(self, message: str, hint: str) -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message, self.hint), self.__dict__  # an error of a worker process arrives whole


class BugError(DragonflyError):
    """An exception that nobody expected: where it was raised, not what it says, which may quote a patient's file.

    Its traceback goes along as a note, which --debug prints, also where another process raised it.
    """

    exit_code = BUG_CODE

    @classmethod
    def of(cls, error: Exception) -> Self:
        last = traceback.extract_tb(error.__traceback__)[-1]
        place = f"{type(error).__name__} in {Path(last.filename).name}, line {last.lineno}"
        bug = cls(
            f"this is a bug in dragonfly: {place}",
            "run it again with --debug and report what it prints, without patient data",
        )
        bug.add_note("".join(traceback.format_exception(error)))
        return bug


def as_told(error: Exception) -> DragonflyError:
    """What one process tells another of an error: an expected one as it is, any other as a bug."""
    return error if isinstance(error, DragonflyError) else BugError.of(error)


class UsageError(DragonflyError):
    """The command line contradicts itself, a value on it cannot be understood, or a question does not fit the model."""

    exit_code = 2


class NoInputError(DragonflyError):
    """Nothing on disk matched what was asked for."""

    exit_code = 3


class InputError(DragonflyError):
    """An input cannot be read, or is of a kind that is not supported."""

    exit_code = 4


class ChangedError(InputError):
    """An input is no longer the file that was opened: what was read of it before must not be used."""


class LostError(InputError):
    """An input could be read when a long run began, and cannot any more.

    Made of one text, since torch hands over an error of its workers as nothing but a traceback that ends with it.
    """

    def __init__(self, text: str) -> None:
        message = text.rpartition(f"{type(self).__name__}: ")[2].strip()
        super().__init__(message, "make it readable again and run the same command, which goes on")

    def __reduce__(self) -> tuple[Any, ...]:
        return type(self), (self.message,)


class ModelError(DragonflyError):
    """The model is missing, gated, corrupt or of an unknown kind."""

    exit_code = 5


class DeviceError(DragonflyError):
    """No usable GPU, or out of memory."""

    exit_code = 6


class LostDeviceError(DeviceError):
    """The GPU has failed, and with it all that this process could still do there."""


class OutputError(DragonflyError):
    """An output cannot be written, or a run to resume was made with other settings."""

    exit_code = 7


class StoppedError(DragonflyError):
    """A batch gave up because of its failures; what was finished is kept."""

    exit_code = SOME_FAILED_CODE


class ProblemError(DragonflyError):
    """A check that was asked for has found something that is not as it should be."""

    exit_code = 9
