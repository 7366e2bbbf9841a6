"""The processes that train side by side, started by ``accelerate launch`` or ``torchrun``: the first speaks and writes.

Both tell each process in its environment which one it is, so this can be asked before torch is imported.
"""

import os

from dragonfly_cli.output.terminal import say


def is_first_process() -> bool:
    return os.environ.get("RANK", "0") == "0"


def process_count() -> int:
    return int(os.environ.get("WORLD_SIZE", "1"))


def say_once(line: str) -> None:
    """However many processes train."""
    if is_first_process():
        say(line)
