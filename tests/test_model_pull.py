"""``dragonfly model pull`` against a real server on this machine that stands in for the hub."""

import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory
from time import monotonic, sleep
from types import SimpleNamespace

import huggingface_hub
import pytest
import torch
from batch_runs import may_not_write_everywhere
from fake_hub import REVISION, FakeHub, serve
from huggingface_hub import constants
from make_checkpoints import tensors, write_checkpoint, write_weights
from run_dragonfly import dragonfly, expect_error
from safetensors.torch import load_file

from dragonfly_cli.store import convert, copies, folder

MED_V1 = "togethercomputer/Llama-3-8B-Dragonfly-Med-v1"
WEIGHTS = "pytorch_model.bin"


@pytest.fixture
def hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeHub]:
    """The tiny v1 checkpoint under the name of a published one, with a script that nobody asked for."""
    origin = write_checkpoint(tmp_path / "repository")
    _inline_encoder(origin)
    (origin / "modeling.py").write_text("raise SystemExit('never run')")
    with serve(origin, MED_V1) as hub:
        monkeypatch.setattr(constants, "ENDPOINT", hub.url)
        monkeypatch.setattr(
            constants, "HUGGINGFACE_CO_URL_TEMPLATE", hub.url + "/{repo_id}/resolve/{revision}/{filename}"
        )
        monkeypatch.setattr(constants, "HF_HUB_CACHE", str(tmp_path / "hub-cache"))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", str(tmp_path / "no-token"))
        monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_XET", True)
        monkeypatch.setattr(constants, "HF_HUB_DISABLE_TELEMETRY", False)  # as it comes
        monkeypatch.setattr(constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what is kept of a broken connection
        monkeypatch.delenv("HF_TOKEN", raising=False)
        monkeypatch.setattr("huggingface_hub.file_download.time.sleep", lambda seconds: None)
        yield hub


def _inline_encoder(origin: Path) -> None:
    """The published repositories describe no encoder in a folder of its own."""
    config = json.loads((origin / "config.json").read_text())
    encoder = json.loads((origin / "image_encoder" / "config.json").read_text())
    config["vision_config"] = encoder.get("vision_config", encoder)
    (origin / "config.json").write_text(json.dumps(config))
    (origin / "image_encoder" / "config.json").unlink()


def test_pull_shows_size_and_licence_then_stores_the_model(hub: FakeHub, models_folder: Path) -> None:
    outcome = dragonfly("model", "pull", "med-v1")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == f"{models_folder / 'med-v1'}\n"
    first = outcome.stderr.splitlines()[:3]
    assert first[0] == f"note: model med-v1 is {MED_V1}, revision {REVISION}"
    assert "non-commercial use only" in first[1]
    assert first[2].startswith("note: size: ")
    place = models_folder / "med-v1"
    assert sorted(path.name for path in place.iterdir()) == ["full", "manifest.json"]
    assert not list(place.rglob("*.py"))
    found = load_file(place / "full" / "model.safetensors")
    assert all(torch.equal(found[name], tensor) for name, tensor in tensors().items())
    facts = dragonfly("model", "show", "med-v1", "--json").json
    assert (facts["repository"], facts["revision"]) == (MED_V1, REVISION)
    assert facts["original"][0]["sha256"] == hashlib.sha256((hub.folder / WEIGHTS).read_bytes()).hexdigest()
    assert dragonfly("model", "verify").code == 0


def test_a_second_pull_asks_nobody(hub: FakeHub) -> None:
    assert dragonfly("model", "pull", "med-v1").code == 0
    asked = len(hub.requests)
    outcome = dragonfly("model", "pull", MED_V1)
    assert outcome.code == 0
    assert "already" in outcome.stderr
    assert len(hub.requests) == asked
    expect_error_after_notes("pull", "med-v1", "--revision", "ffff", code=5, words=["revision", REVISION])
    for same in (REVISION[:8].upper(), "main"):
        assert dragonfly("model", "pull", "med-v1", "--revision", same).code == 0
    expect_error_after_notes("pull", "med-v1", "--revision", "nonesuch", code=5, words=["no such revision"])


def test_a_model_of_a_store_that_may_not_be_written_is_there(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    pull = ("model", "pull", "med-v1")
    with TemporaryDirectory() as name:  # pytest's own are closed to all others, from above
        store = Path(name) / "models"
        monkeypatch.setenv("DRAGONFLY_MODELS", str(store))
        monkeypatch.setattr(constants, "HF_TOKEN_PATH", f"{name}/no-token")
        assert dragonfly(*pull, "--keep-original").code == 0
        asked = len(hub.requests)
        Path(name).chmod(0o755)
        store.chmod(0o555)
        with may_not_write_everywhere():
            outcome = dragonfly(*pull, "--keep-original")
            assert (outcome.code, outcome.stdout) == (0, f"{store / 'med-v1'}\n"), outcome.stderr
            assert "note: model med-v1 is on this machine already" in outcome.stderr
            expect_error(dragonfly(*pull, "--keep-original", "--revision", "ffff"), 5, REVISION)
            for with_work_left in (pull, (*pull, "--keep-original", "--keep", "nf4")):
                expect_error(dragonfly(*with_work_left), 7, str(store), "Permission denied")
            monkeypatch.setattr(copies, "has_bitsandbytes", lambda: False)
            outcome = dragonfly(*pull, "--keep-original", "--keep", "both")
            assert outcome.code == 0 and "bitsandbytes is not installed" in outcome.stderr
        assert len(hub.requests) == asked


@pytest.mark.parametrize("answer", [{"Location": "/again"}, {"Location": "file:///etc/hostname"}])
def test_an_answer_without_use_is_not_called_a_missing_connection(hub: FakeHub, answer: dict[str, str]) -> None:
    hub.instead = {WEIGHTS: (302, answer, b""), "again": (302, answer, b"")}
    expect_error(dragonfly("model", "pull", "med-v1"), 5, MED_V1, "cannot be used")


def expect_error_after_notes(*arguments: str, code: int, words: list[str]) -> None:
    expect_error(dragonfly("model", *arguments), code, *words)


def test_shards_with_an_index_and_another_organisation(tmp_path: Path, hub: FakeHub, models_folder: Path) -> None:
    hub.folder = write_checkpoint(tmp_path / "sharded", "v2", shards=2)
    _inline_encoder(hub.folder)
    hub.repository = "some-lab/dragonfly"
    outcome = dragonfly("model", "pull", "some-lab/dragonfly", "--keep-original")
    assert outcome.code == 0, outcome.stderr
    assert "note: licence: llama3" in outcome.stderr
    original = models_folder / "some-lab--dragonfly" / "original"
    assert (original / "pytorch_model-00002-of-00002.bin").is_file()
    facts = dragonfly("model", "show", "some-lab/dragonfly", "--json").json
    assert facts["architecture"] == "dragonfly-v2"
    assert len(facts["original"]) == 2
    found = {k: v for f in (original.parent / "full").glob("*.safetensors") for k, v in load_file(f).items()}
    assert found.keys() == tensors("v2").keys()


def test_a_dry_run_downloads_nothing(hub: FakeHub, models_folder: Path) -> None:
    outcome = dragonfly("model", "pull", "med-v1", "--dry-run")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert "non-commercial" in outcome.stderr
    assert hub.downloads() == []
    assert not models_folder.exists()


@pytest.mark.parametrize("status", [401, 403])
def test_a_gated_model_says_how_to_get_access(
    hub: FakeHub, status: int, models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hub.refuse_files = status
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 5, MED_V1, "gated", str(status))
    assert "non-commercial" in outcome.stderr
    hint = outcome.error_lines[1]
    assert f"{hub.url}/{MED_V1}" in hint
    assert "HF_TOKEN" in hint
    assert hub.tokens == {""}
    hub.refuse_files = None
    monkeypatch.setenv("HF_TOKEN", "hf_secret")
    hub.instead[WEIGHTS] = (403, {"X-Error-Code": "GatedRepo"}, b"")
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 5, "gated")
    assert "account of your token" in outcome.error_lines[1]
    assert "hf_secret" not in outcome.stderr
    hub.instead.clear()
    outcome = dragonfly("model", "pull", "med-v1")
    assert outcome.code == 0
    assert "Bearer hf_secret" in hub.tokens
    assert "hf_secret" not in outcome.stderr
    assert not any(b"hf_secret" in file.read_bytes() for file in models_folder.rglob("*") if file.is_file())


@pytest.mark.parametrize("status", [401, 403, 404, 500])
def test_a_hub_that_refuses(hub: FakeHub, status: int) -> None:
    hub.refuse_all = status
    expect_error(dragonfly("model", "pull", "med-v1"), 5, MED_V1, str(status))


PAGE = (200, {"Content-Type": "text/html; charset=utf-8"}, b"<html>Log in to the proxy</html>")


def test_the_page_of_a_proxy_is_not_kept_as_part_of_a_file(hub: FakeHub, models_folder: Path) -> None:
    """It was appended, or took the place of gigabytes, and the whole file was downloaded again, twice."""
    hub.stop_after[WEIGHTS] = 5000
    assert dragonfly("model", "pull", "med-v1").code == 5
    hub.stop_after.clear()
    for part in ("/api/", WEIGHTS):
        hub.instead = {part: PAGE}
        outcome = dragonfly("model", "pull", "med-v1")
        expect_error(outcome, 5, MED_V1, "a web page came instead")
        assert hub.url in outcome.error_lines[1]
        assert _part_bytes(models_folder) == 5000
    hub.instead.clear()
    hub.requests.clear()
    assert dragonfly("model", "pull", "med-v1").code == 0
    assert hub.downloads() == [f"{WEIGHTS} 5000"]


def test_an_answer_of_another_length_is_thrown_away(hub: FakeHub, models_folder: Path) -> None:
    hub.stop_after[WEIGHTS] = 5000
    assert dragonfly("model", "pull", "med-v1").code == 5
    hub.stop_after.clear()
    for body in (b"", b"x" * 10**6):
        hub.instead[WEIGHTS] = (206, {"Content-Range": "bytes 5000-5001/5002"}, body)
        expect_error(dragonfly("model", "pull", "med-v1"), 5, MED_V1, WEIGHTS, "did not arrive whole")
        assert _part_bytes(models_folder) == 5000
    hub.instead[WEIGHTS] = (200, {}, b"short")  # a server that begins again
    expect_error(dragonfly("model", "pull", "med-v1"), 5, WEIGHTS, "did not arrive whole")
    assert _part_bytes(models_folder) == 0
    hub.instead.clear()
    assert dragonfly("model", "pull", "med-v1").code == 0
    assert dragonfly("model", "verify").code == 0


@pytest.mark.parametrize("part", ["/api/", WEIGHTS])
def test_a_hub_that_wants_no_more_requests_is_not_waited_for(hub: FakeHub, part: str) -> None:
    """However long it says, without a word: a day, say."""
    hub.instead[part] = (429, {"Retry-After": "86400"}, b"")
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 5, MED_V1, "no more requests", "429")
    assert "86400 seconds" in outcome.error_lines[1]


@pytest.mark.parametrize(
    "answer", [b"", b"no JSON", b"[]", b"null", b"{}", json.dumps({"id": MED_V1, "siblings": []}).encode()]
)
def test_an_answer_that_is_none_of_a_hub(hub: FakeHub, answer: bytes) -> None:
    hub.instead["/api/"] = (200, {}, answer)
    expect_error(dragonfly("model", "pull", "med-v1"), 5, MED_V1, "no answer of a hub")


def test_a_wrong_address_is_not_called_a_network_problem(hub: FakeHub) -> None:
    hub.instead["/api/"] = (404, {}, b"")
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 5, MED_V1, "404")
    assert "HF_ENDPOINT" in outcome.error_lines[1]


@pytest.mark.parametrize("address", ["", "hub.example", "ftp://hub.example", "http://", "me:hunter2@hub.example"])
def test_an_address_that_is_none(hub: FakeHub, address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", address)
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 2, "HF_ENDPOINT")
    assert "hunter2" not in outcome.stderr


def test_a_password_in_the_address_is_not_shown(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://me:hunter2@127.0.0.1:9")
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 5, "http://127.0.0.1:9")
    assert "hunter2" not in outcome.stderr


def test_a_token_that_is_none_is_not_shown(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_sécret")
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 2, "token")
    assert "cret" not in outcome.stderr
    assert hub.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "http://127.0.0.1:99999"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "soon"),
        ("HF_HOME", "/dev/null/home"),
        ("SSL_CERT_FILE", "/dev/null/certificates"),
        ("ALL_PROXY", "gopher://me:hunter2@127.0.0.1:9"),
    ],
)
def test_the_environment_is_checked_before_anything_is_made(models_folder: Path, name: str, value: str) -> None:
    """In a process of its own, because huggingface_hub reads it once."""
    environment = {**os.environ, name: value}
    command = [sys.executable, "-m", "dragonfly_cli", "model", "pull", "med-v1"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    error, hint = done.stderr.splitlines()
    assert error.startswith("error: the hub cannot be asked with these environment variables: ")
    assert hint.startswith("hint: check ") and name in hint.replace("the other HF_ ones", "HF_HUB_DOWNLOAD_TIMEOUT")
    assert "hunter2" not in done.stderr
    assert not models_folder.exists()


def test_a_dry_run_makes_nothing_even_where_nothing_may_be_made(hub: FakeHub, models_folder: Path) -> None:
    with folder.locked(models_folder / "med-v1"):
        assert dragonfly("model", "pull", "med-v1", "--dry-run").code == 0
        expect_error(dragonfly("model", "pull", "med-v1"), 5, "another dragonfly")


def test_an_interrupted_download_goes_on_where_it_stopped(hub: FakeHub, models_folder: Path) -> None:
    half = (hub.folder / WEIGHTS).stat().st_size // 2000 * 1000
    hub.stop_after[WEIGHTS] = half
    outcome = dragonfly("model", "pull", "med-v1")
    expect_error(outcome, 5, MED_V1)
    assert "goes on where it stopped" in outcome.error_lines[1]
    assert "med-v1  not finished" in dragonfly("model", "list").stdout
    hub.stop_after.clear()
    hub.requests.clear()
    outcome = dragonfly("model", "pull", "med-v1")
    assert outcome.code == 0
    assert hub.downloads() == [f"{WEIGHTS} {half}"]
    left = folder.size_in_words((hub.folder / WEIGHTS).stat().st_size - half)
    assert f"note: getting {WEIGHTS}, {left}\n" in outcome.stderr
    assert "note: checking tokenizer.json\n" in outcome.stderr and outcome.stderr.count("note: getting") == 1
    assert dragonfly("model", "verify").code == 0


def test_an_interrupted_conversion_downloads_nothing_again(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(convert, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert dragonfly("model", "pull", "med-v1").code != 0
    hub.requests.clear()
    assert dragonfly("model", "pull", "med-v1").code == 0
    assert hub.downloads() == []


def test_a_complete_download_is_converted_without_a_network(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(convert, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert dragonfly("model", "pull", "med-v1").code != 0
    hub.requests.clear()
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expect_error(dragonfly("model", "pull", "med-v1", "--revision", "fedcba98"), 5, "HF_HUB_OFFLINE")
    assert dragonfly("model", "pull", "med-v1", "--revision", REVISION[:8]).code == 0
    assert hub.requests == []


def test_offline_nothing_is_asked(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    expect_error(dragonfly("model", "pull", "med-v1"), 5, MED_V1, "HF_HUB_OFFLINE")
    assert hub.requests == []


def test_no_server(hub: FakeHub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    expect_error(dragonfly("model", "pull", "med-v1"), 5, MED_V1, "no connection")


def test_what_the_hub_s_own_cache_has_is_not_downloaded_again(hub: FakeHub, models_folder: Path) -> None:
    huggingface_hub.hf_hub_download(MED_V1, WEIGHTS, revision=REVISION, endpoint=hub.url)
    hub.requests.clear()
    assert dragonfly("model", "pull", "med-v1").code == 0
    assert not any(WEIGHTS in download for download in hub.downloads())
    assert Path(constants.HF_HUB_CACHE).exists()


def test_the_disk_is_asked_before_the_download(
    hub: FakeHub, models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda place: SimpleNamespace(free=2_000_000))
    expect_error(dragonfly("model", "pull", "med-v1"), 7, "not enough disk space", "2.0 MB free")
    assert hub.downloads() == []


@pytest.mark.parametrize("name", [WEIGHTS, "tokenizer.json"])
def test_a_file_that_was_damaged_on_its_way_is_not_used(hub: FakeHub, name: str) -> None:
    hub.damage.add(name)
    expect_error(dragonfly("model", "pull", "med-v1"), 5, name, "damaged")
    hub.damage.clear()
    assert dragonfly("model", "pull", "med-v1").code == 0
    assert dragonfly("model", "verify").code == 0


def test_a_part_of_another_revision_is_not_continued(hub: FakeHub, tmp_path: Path) -> None:
    hub.stop_after[WEIGHTS] = 5000
    assert dragonfly("model", "pull", "med-v1").code == 5
    hub.stop_after.clear()
    changed = {name: tensor + 1 for name, tensor in tensors().items()}
    torch.save(changed, hub.folder / WEIGHTS)
    hub.requests.clear()
    assert dragonfly("model", "pull", "med-v1").code == 0
    assert hub.downloads() == [f"{WEIGHTS} 0"]


def test_a_repository_without_a_checkpoint(hub: FakeHub) -> None:
    for name in (WEIGHTS, "tokenizer.json"):
        content = (hub.folder / name).read_bytes()
        (hub.folder / name).unlink()
        expect_error(dragonfly("model", "pull", "med-v1"), 5, "no checkpoint", "weights" if name == WEIGHTS else name)
        (hub.folder / name).write_bytes(content)
    assert hub.downloads() == []
    expect_error(dragonfly("model", "pull", "med-v3"), 5, "med-v3", "no such published model")
    expect_error(dragonfly("model", "pull", "med-v1", "--revision", "nonesuch"), 5, "no such revision")


def test_the_environment_of_the_hub_is_obeyed(hub: FakeHub, tmp_path: Path, models_folder: Path) -> None:
    """In a process of its own, because huggingface_hub reads it once."""
    environment = {
        **os.environ,
        "HF_ENDPOINT": hub.url,
        "HF_HOME": str(tmp_path / "home"),
        "HF_TOKEN": "hf_mine",
        "HF_HUB_DISABLE_TELEMETRY": "0",
    }
    command = [sys.executable, "-m", "dragonfly_cli", "model", "pull", "med-v1"]
    for more, variables in ([], {"HF_HUB_OFFLINE": "1"}), (["--offline"], {}), ([], {"DRAGONFLY_OFFLINE": "1"}):
        offline = subprocess.run(command + more, env=environment | variables, capture_output=True, text=True)
        assert offline.returncode == 5
        assert "--offline, HF_HUB_OFFLINE" in offline.stderr
    assert hub.requests == []
    done = subprocess.run(command, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout == f"{models_folder / 'med-v1'}\n"
    assert hub.tokens == {"Bearer hf_mine"}
    names = {path.name for path in hub.folder.iterdir() if path.suffix != ".py"} - {"image_encoder"}
    asked = [f"GET /api/models/{MED_V1}", *(f"GET {name} 0" for name in names)]
    assert sorted(hub.requests) == sorted(asked)  # nothing else, such as telemetry
    assert not any("torch" in agent for agent in hub.agents)
    assert "\r" not in done.stderr  # no progress bars where there is no terminal


def test_a_killed_pull_goes_on(hub: FakeHub, tmp_path: Path, models_folder: Path) -> None:
    """With a file that is larger than what huggingface_hub writes at a time, and no chance to tidy up."""
    words = 100_000
    config = json.loads((hub.folder / "config.json").read_text())
    config["vocab_size"] = config["text_config"]["vocab_size"] = words
    (hub.folder / "config.json").write_text(json.dumps(config))
    # both are one tensor in the pickle, as some programs write them
    rows = {"language_model.model.embed_tokens.weight", "language_model.lm_head.weight"}
    table = torch.zeros(words, 64, dtype=torch.bfloat16)
    write_weights(hub.folder, {**tensors(), **dict.fromkeys(rows, table + 1)})
    hub.stall_after = 11 * 2**20
    environment = {**os.environ, "HF_ENDPOINT": hub.url, "HF_HOME": str(tmp_path / "home")}
    command = [sys.executable, "-m", "dragonfly_cli", "model", "pull", "med-v1"]
    with subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        deadline = monotonic() + 30
        while not _part_bytes(models_folder) and monotonic() < deadline:
            sleep(0.05)
        process.kill()
    kept = _part_bytes(models_folder)
    assert kept
    hub.stall_after = None
    hub.requests.clear()
    assert dragonfly("model", "pull", "med-v1").code == 0
    assert hub.downloads() == [f"{WEIGHTS} {kept}"]
    assert dragonfly("model", "verify").code == 0


def _part_bytes(models_folder: Path) -> int:
    return sum(part.stat().st_size for part in models_folder.glob(f"med-v1/original/.{WEIGHTS}.*.part"))
