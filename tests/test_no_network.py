"""No command but ``model pull`` opens a connection: here every attempt to do so is an error."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from make_checkpoints import write_checkpoint
from make_files import write_dicom, write_svs
from PIL import Image
from run_dragonfly import dragonfly

from dragonfly_cli.engine.checkpoints import find_checkpoint


class NetworkUsedError(BaseException):
    """No library catches it, so that no attempt stays unseen."""


@pytest.fixture(autouse=True)
def no_sockets(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Forbids names to be resolved and connections to be made; returns the list of attempts."""
    attempts: list[str] = []

    def refuse(*arguments: object, **_: object) -> None:
        attempts.append(str(arguments))
        raise NetworkUsedError(arguments)

    for name in ("connect", "connect_ex", "sendto", "bind"):
        monkeypatch.setattr(socket.socket, name, refuse)
    for name in ("create_connection", "getaddrinfo", "gethostbyname"):
        monkeypatch.setattr(socket, name, refuse)
    for name in ("HF_HUB_OFFLINE", "TRANSFORMERS_OFFLINE"):
        monkeypatch.delenv(name, raising=False)
    return attempts


@pytest.fixture
def model(tmp_path: Path) -> str:
    """The built-in model, or a tiny one in a source tree that has none yet."""
    if (find_checkpoint("demo").folder / "config.json").is_file():
        return "demo"
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "tiny")).code == 0
    return "tiny"


@pytest.fixture
def study(tmp_path: Path) -> Path:
    folder = tmp_path / "study"
    folder.mkdir()
    write_svs(folder / "slide.svs", (800, 560))
    Image.effect_noise((300, 200), 90).convert("RGB").save(folder / "photo.png")
    write_dicom(folder / "film.dcm", np.tile(np.arange(64, dtype=np.uint16), (64, 1)), window=(32, 64))
    return folder


def test_the_ban_works() -> None:
    with pytest.raises(NetworkUsedError):
        socket.create_connection(("127.0.0.1", 9))
    with pytest.raises(NetworkUsedError):
        socket.socket().connect(("127.0.0.1", 9))


def test_ask_caption_and_batch(model: str, study: Path, tmp_path: Path, no_sockets: list[str]) -> None:
    for image in sorted(study.iterdir()):
        outcome = dragonfly("ask", image, "Is it?", "What is it?", "--model", model, "--max-tokens", "3", "--json")
        assert outcome.code == 0, outcome.stderr
    assert dragonfly("caption", study / "photo.png", "-m", model, "--max-tokens", "3").code == 0
    outcome = dragonfly("batch", study, "-q", "Is it?", "-m", model, "-o", tmp_path / "answers.csv")
    assert outcome.code == 0, outcome.stderr
    assert no_sockets == []


def test_chat_and_verify(model: str, study: Path, tmp_path: Path, no_sockets: list[str]) -> None:
    lines = "Is it?\nWhat is it?\n/save " + str(tmp_path / "saved.json")
    outcome = dragonfly("chat", study / "photo.png", "-m", model, "--max-tokens", "3", stdin=lines)
    assert outcome.code == 0, outcome.stderr
    assert dragonfly("verify", tmp_path / "saved.json").code == 0
    assert no_sockets == []


@pytest.mark.slow
def test_finetune(model: str, study: Path, tmp_path: Path, no_sockets: list[str]) -> None:
    row = {"image": "photo.png", "question": "Is it?", "answer": "Yes"}
    (study / "rows.jsonl").write_text(json.dumps(row) + "\n")
    outcome = dragonfly("finetune", study / "rows.jsonl", "-o", tmp_path / "out", "-m", model, "--steps", "1")
    assert outcome.code == 0, outcome.stderr
    assert no_sockets == []


def test_view_and_info(model: str, study: Path, tmp_path: Path, no_sockets: list[str]) -> None:
    assert dragonfly("info", study / "slide.svs").code == 0
    assert dragonfly("view", study / "photo.png", "-o", tmp_path / "view.png", "-m", model).code == 0
    assert no_sockets == []


def test_offline_changes_no_answer(model: str, study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_HUB_OFFLINE", "0")  # so that it is as before when the test is over
    call = ("ask", study / "photo.png", "Is it?", "-m", model)
    assert dragonfly(*call, "--offline").stdout == dragonfly(*call).stdout != ""


def test_doctor(model: str, no_sockets: list[str]) -> None:
    assert dragonfly("doctor", "-m", model, "--device", "cpu").code in (0, 9)
    assert no_sockets == []


def test_every_command_of_the_store_but_pull(tmp_path: Path, no_sockets: list[str]) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    packed = tmp_path / "mine.tar"
    for call in ("list", "show mine", "verify", f"export mine -o {packed}", "rm mine", f"import {packed}"):
        assert dragonfly("model", *call.split()).code == 0
    assert no_sockets == []


def test_no_code_is_fetched_for_4_bit_weights(tmp_path: Path) -> None:
    """bitsandbytes does so on some processors, where a package of that name is installed."""
    pytest.importorskip("bitsandbytes")
    (tmp_path / "kernels.py").write_text("def get_kernel(*_, **__):\n    print('fetched')\n    raise OSError\n")
    program = "from dragonfly_med.quantization import quietly_import_bitsandbytes as load; load(); import kernels"
    paths = os.pathsep.join([str(tmp_path), *filter(None, sys.path)])
    ran = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert "fetched" not in ran.stdout


def test_a_model_that_is_not_here_is_not_looked_for_elsewhere(study: Path, no_sockets: list[str]) -> None:
    for name in ("med-v2", "togethercomputer/Llama-3.1-8B-Dragonfly-Med-v2", "some/model"):
        assert dragonfly("ask", study / "photo.png", "Is it?", "-m", name).code == 5
    assert no_sockets == []


def test_pull_is_seen_by_the_ban() -> None:
    """Shows that the ban would have caught the others."""
    with pytest.raises(NetworkUsedError):
        dragonfly("model", "pull", "med-v2", "--dry-run")
