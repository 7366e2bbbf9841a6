"""Which checkpoint ``--model`` means: a name to a folder on this machine. Nothing is downloaded here."""

import hashlib
from dataclasses import dataclass
from importlib.util import find_spec
from pathlib import Path

from dragonfly_cli.errors import ModelError

DEMO = "demo"
PUBLISHED = ("med-v2", "med-v1", "general-v2", "general-v1")

# The hash of a published checkpoint (16 GB) would take longer than the answer.
_HASHED_UP_TO_BYTES = 64 * 2**20


@dataclass(frozen=True)
class Checkpoint:
    """A model folder and the name it goes by in records."""

    id: str
    folder: Path

    @property
    def is_demo(self) -> bool:
        return self.id == DEMO

    def sha256(self) -> str | None:
        """Hash of the weight files in the order of their names; ``None`` when they are too large to hash at a start."""
        files = sorted([*self.folder.glob("*.safetensors"), *self.folder.glob("pytorch_model*.bin")])
        if not files or sum(file.stat().st_size for file in files) > _HASHED_UP_TO_BYTES:
            return None
        digest = hashlib.sha256()
        for file in files:
            digest.update(file.read_bytes())
        return digest.hexdigest()


def find_checkpoint(model: str) -> Checkpoint:
    """The checkpoint that ``--model`` names: ``auto``, ``demo``, a published model, or a folder.

    Raises ModelError when it is not on this machine.
    """
    if model in ("auto", DEMO):
        return Checkpoint(DEMO, _demo_folder())
    folder = Path(model).expanduser()
    if folder.is_dir():
        return Checkpoint(str(model), folder)
    if model in PUBLISHED:
        raise ModelError(
            f"model {model}: it is not on this machine",
            "download its repository by other means and give --model the folder; --model demo is built in",
        )
    raise ModelError(
        f"model {model}: there is no such model, and no such folder",
        f"give a checkpoint folder, or one of: auto, {DEMO}, {', '.join(PUBLISHED)}",
    )


def _demo_folder() -> Path:
    package = find_spec("dragonfly_med")  # finding does not import, and with it torch
    if package is None or not package.submodule_search_locations:
        raise ModelError("model demo: the package dragonfly_med is not installed", "reinstall dragonfly-cli")
    return Path(next(iter(package.submodule_search_locations))) / "demo"
