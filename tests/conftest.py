"""What every test needs: nothing stored by this machine's user may answer, and a busy machine is no failure.

Modules run side by side, each whole in one process of pytest-xdist; a run of one module stays in its own process, where
``breakpoint()`` and ``-s`` work. Below that, what tests of several modules ask for.
"""

import os
import socket
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")

os.environ.setdefault("OMP_WAIT_POLICY", "passive")  # as the program's own processes have it, before torch is imported
MOST_PROCESSES = 4  # each may hold the built-in model and what a test makes of it
if "PYTEST_XDIST_WORKER" in os.environ:  # every core has a process, so that more threads would only take turns
    os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported, here and in what the tests start


def pytest_xdist_auto_num_workers(config: pytest.Config) -> int:
    modules = {argument.partition("::")[0] for argument in config.args}
    if len(modules) == 1 and modules.pop().endswith(".py"):
        return 0
    return min(os.cpu_count() or 1, MOST_PROCESSES)


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Modules with the most slow tests come first: one that came last would keep one process busy, and no other."""
    slow = Counter(item.path for item in items if item.get_closest_marker("slow"))
    items.sort(key=lambda item: -slow[item.path])


@pytest.fixture(scope="session")
def stores(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@pytest.fixture(autouse=True)
def models_folder(stores: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model store, different in every test."""
    folder = Path(mkdtemp(dir=stores)) / "models"
    monkeypatch.setenv("DRAGONFLY_MODELS", str(folder))
    monkeypatch.setenv("DRAGONFLY_KEEP", "full")  # tests of the 4-bit copy say so
    monkeypatch.setenv("DRAGONFLY_CALIBRATIONS", str(folder.with_name("calibrations")))
    templates = folder.with_name("templates.toml")
    templates.touch()
    monkeypatch.setenv("DRAGONFLY_TEMPLATES", str(templates))
    return folder


@pytest.fixture(scope="module")
def one_thread() -> Iterator[None]:
    """For networks of layers so small that threads only wait for one another."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise AssertionError("something wanted to open a connection")

    for name in ("connect", "connect_ex"):
        monkeypatch.setattr(socket.socket, name, refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)


@pytest.fixture(scope="module")
def networks() -> dict[str, Any]:
    """The small networks of ``golden`` by version, each behind its processor."""
    from make_files import GOLDEN
    from small_networks import VERSIONS, open_network

    return {version: open_network(GOLDEN / version / "checkpoint") for version in VERSIONS}


@pytest.fixture(params=("v1", "v2"))
def network(request: pytest.FixtureRequest, networks: dict[str, Any]) -> Any:
    """Each of them in turn."""
    return networks[request.param]


@pytest.fixture(scope="module")
def v1(networks: dict[str, Any]) -> Any:
    return networks["v1"]


@pytest.fixture
def drawn(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Every text that is written into a picture."""
    from PIL import ImageDraw

    texts: list[str] = []
    draw = ImageDraw.ImageDraw.text
    monkeypatch.setattr(
        ImageDraw.ImageDraw,
        "text",
        lambda self, xy, text, *more, **options: texts.append(text) or draw(self, xy, text, *more, **options),
    )
    return texts
