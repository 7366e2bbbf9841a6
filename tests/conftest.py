"""What every test needs: models of this machine's user must not answer in place of the built-in one."""

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def models_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model store, different in every test."""
    folder = tmp_path_factory.mktemp("store") / "models"
    monkeypatch.setenv("DRAGONFLY_MODELS", str(folder))
    monkeypatch.setenv("DRAGONFLY_KEEP", "full")  # tests of the 4-bit copy say so
    return folder
