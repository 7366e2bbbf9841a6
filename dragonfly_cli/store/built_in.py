"""The demonstration model that comes with the program: its name, where it lies, and what it consists of.

It is part of the package and not of the store: nothing pulls, verifies or removes it.
"""

from importlib.util import find_spec
from math import prod
from pathlib import Path

from dragonfly_cli.errors import ModelError
from dragonfly_cli.store.catalog import DEMO
from dragonfly_cli.store.manifest import Manifest, list_files

ARCHITECTURE = "dragonfly-v1"
LICENCE = "CC BY-SA 4.0"  # see CARD.md beside it

_WEIGHTS = "model.safetensors"


def demo_folder() -> Path:
    """Raises ModelError where the program is not wholly installed."""
    package = find_spec("dragonfly_med")  # finding does not import, and with it torch
    if package is None or not package.submodule_search_locations:
        raise ModelError("model demo: the package dragonfly_med is not installed", "reinstall dragonfly-cli")
    return Path(next(iter(package.submodule_search_locations))) / DEMO


def demo_manifest() -> Manifest:
    """What a manifest would say of it; its files are hashed for that."""
    folder = demo_folder()
    return Manifest(
        id=DEMO,
        repository=None,
        revision=None,
        licence=LICENCE,
        architecture=ARCHITECTURE,
        parameters=_count_parameters(folder / _WEIGHTS),
        files=tuple(list_files(folder.parent, DEMO)),
        original=(),
    )


def _count_parameters(weights: Path) -> int:
    from safetensors import safe_open

    with safe_open(weights, framework="numpy") as tensors:
        return sum(prod(tensors.get_slice(name).get_shape()) for name in tensors.keys())  # noqa: SIM118 - no mapping
