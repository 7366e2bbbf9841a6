"""What every test needs: nothing stored by this machine's user may answer, and a busy machine is no failure."""

from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

settings.register_profile("unhurried", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("unhurried")


@pytest.fixture(autouse=True)
def models_folder(tmp_path_factory: pytest.TempPathFactory, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty model store, different in every test."""
    folder = tmp_path_factory.mktemp("store") / "models"
    monkeypatch.setenv("DRAGONFLY_MODELS", str(folder))
    monkeypatch.setenv("DRAGONFLY_KEEP", "full")  # tests of the 4-bit copy say so
    monkeypatch.setenv("DRAGONFLY_CALIBRATIONS", str(folder.with_name("calibrations")))
    monkeypatch.setenv("DRAGONFLY_TEMPLATES", str(folder.with_name("templates.toml")))
    return folder
