"""``dragonfly doctor``: what it reports of this machine, and that it notices what is broken."""

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
import torch
from make_files import GOLDEN
from run_dragonfly import Outcome, dragonfly
from safetensors.torch import load_file, save_file

from dragonfly_cli.doctor import examination, hardware, software, storage
from dragonfly_cli.doctor.finding import DoctorSettings, Finding, Status
from dragonfly_cli.option_values import Attention
from dragonfly_med import DragonflyForCausalLM

FULL = GOLDEN / "v1" / "checkpoint"
SETTINGS = DoctorSettings(model=str(FULL))


@pytest.fixture(scope="module")
def healthy() -> Outcome:
    return dragonfly("doctor", "-m", FULL, "--device", "cpu", "--json")


def only(findings) -> Finding:
    (finding,) = findings
    return finding


def test_a_healthy_machine_has_no_problem(healthy: Outcome) -> None:
    assert healthy.code == 0, healthy.stdout
    report = healthy.json
    assert report["schema_version"] == 1
    assert report["status"] in ("ok", "warning")
    for check in report["checks"]:
        assert set(check) == {"name", "status", "detail", "remedy"}
        assert check["status"] in ("ok", "warning"), check
        assert (check["remedy"] is None) == (check["status"] == "ok")


def test_everything_that_answering_needs_is_looked_at(healthy: Outcome) -> None:
    names = {check["name"] for check in healthy.json["checks"]}
    assert names >= {"python", "torch", "transformers", "gpu", "4 bit", "attention", "openslide"}
    assert names >= {"disk", "cache", "models", "sees the picture"}
    assert any(name.startswith("decoder JPEG 2000") for name in names)
    (sees,) = (check for check in healthy.json["checks"] if check["name"] == "sees the picture")
    assert str(FULL) in sees["detail"]


def test_text_has_a_line_a_check_and_the_remedy_below_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(examination, "CHECKS", (software.python, lambda settings: [BAD]))
    outcome = dragonfly("doctor")
    assert outcome.code == 9
    first, second, third = outcome.stdout.splitlines()
    assert first.startswith("ok       python: 3.")
    assert (second, third) == ("problem  heart: stands still", "         wind it up")
    assert outcome.stderr == "note: ok: 1 of 2 checks; problem: heart\n"
    monkeypatch.setattr(examination, "CHECKS", (software.python,))
    assert dragonfly("doctor").stderr == "note: ok: 1 of 1 checks\n"


BAD = Finding("heart", Status.problem, "stands still", "wind it up")


def test_a_blind_network_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    features = DragonflyForCausalLM.image_features
    monkeypatch.setattr(
        DragonflyForCausalLM, "image_features", lambda self, crops: features(self, torch.zeros_like(crops))
    )
    outcome = dragonfly("doctor", "-m", FULL, "--device", "cpu")
    assert outcome.code == 9
    assert "problem  sees the picture" in outcome.stdout
    assert "is blind" in outcome.stdout


def test_a_network_without_numbers_is_a_problem(tmp_path: Path) -> None:
    shutil.copytree(FULL, tmp_path / "damaged")
    weights = load_file(FULL / "model.safetensors")
    weights["language_model.model.norm.weight"].fill_(float("inf"))
    save_file(weights, tmp_path / "damaged" / "model.safetensors", metadata={"format": "pt"})
    outcome = dragonfly("doctor", "-m", tmp_path / "damaged", "--device", "cpu")
    assert outcome.code == 9
    assert "what it computes in float32 is no number" in outcome.stdout


def test_a_broken_model_is_a_problem_and_the_rest_is_still_told(tmp_path: Path) -> None:
    shutil.copytree(FULL, tmp_path / "broken")
    (tmp_path / "broken" / "model.safetensors").write_bytes(b"")
    outcome = dragonfly("doctor", "-m", tmp_path / "broken", "--json")
    assert outcome.code == 9
    troubles = [check for check in outcome.json["checks"] if check["status"] == "problem"]
    assert [check["name"] for check in troubles] == ["sees the picture"]
    assert "cannot be loaded" in troubles[0]["detail"]


def test_a_missing_model_and_a_missing_card_are_problems() -> None:
    outcome = dragonfly("doctor", "-m", "nonesuch", "--device", "cuda:99", "--json")
    assert outcome.code == 9
    troubles = {check["name"] for check in outcome.json["checks"] if check["status"] == "problem"}
    assert troubles == {"gpu", "models", "sees the picture"}


def test_a_missing_card_is_told_once_whatever_kernel_was_asked_for() -> None:
    settings = DoctorSettings(device="cuda:99", attn=Attention.flash)
    assert only(hardware.gpu(settings)).status is Status.problem
    assert list(hardware.attention(settings)) == []
    assert "NVIDIA" in only(hardware.attention(DoctorSettings(device="cpu", attn=Attention.flash))).detail


def test_no_gpu_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert only(hardware.gpu(SETTINGS)).status is Status.warning


def test_a_card_that_pytorch_cannot_use_has_its_own_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    monkeypatch.setattr(hardware, "_driver", lambda: "570.1")
    monkeypatch.setattr(torch.version, "cuda", None)
    assert "CUDA build" in (only(hardware.gpu(SETTINGS)).remedy or "")
    monkeypatch.setattr(torch.version, "cuda", "12.8")
    assert "update the driver" in (only(hardware.gpu(SETTINGS)).remedy or "")


def test_wrong_4_bit_products_are_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    bitsandbytes = pytest.importorskip("bitsandbytes")
    assert only(hardware.four_bit(SETTINGS)).status is Status.ok
    product = bitsandbytes.nn.Linear4bit.forward
    monkeypatch.setattr(bitsandbytes.nn.Linear4bit, "forward", lambda self, x: product(self, x) * 1.05)
    found = only(hardware.four_bit(SETTINGS))
    assert found.status is Status.problem
    assert "--quant none" in (found.remedy or "")


def test_without_bitsandbytes_there_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "bitsandbytes", None)
    assert only(hardware.four_bit(SETTINGS)).status is Status.warning


@pytest.mark.parametrize("raised", ["ImportError('libcudart.so: no such file')", "ModuleNotFoundError(name='other')"])
def test_a_bitsandbytes_that_does_not_load_is_not_said_to_be_missing(
    raised: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "bitsandbytes.py").write_text(f"raise {raised}")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "bitsandbytes", raising=False)
    found = only(hardware.four_bit(SETTINGS))
    assert (found.status, found.detail[:31]) == (Status.problem, "bitsandbytes does not work here")


def test_what_a_library_says_in_many_lines_is_one_line_of_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "tifffile.py").write_text("raise ImportError('it is broken:\\n  - look here\\nok       python: 3')")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "tifffile", raising=False)
    monkeypatch.setattr(examination, "CHECKS", (software.imaging,))
    line, remedy = dragonfly("doctor").stdout.splitlines()
    assert line == "problem  imaging: tifffile cannot be loaded: it is broken: - look here ok python: 3"
    assert remedy == "         run: pip install --force-reinstall tifffile"


def test_wrong_attention_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.nn.functional, "scaled_dot_product_attention", lambda query, key, value: value)
    found = only(hardware.attention(SETTINGS))
    assert (found.status, found.remedy) == (Status.problem, "use --attn eager")


def test_missing_and_old_libraries(monkeypatch: pytest.MonkeyPatch) -> None:
    wanted = ["nonesuch>=1", "bitsandbytes>=999", "torch>=2", "ray; extra == 'ray'"]
    monkeypatch.setattr(software, "requires", lambda name: wanted)
    missing, old, fine = software.libraries(SETTINGS)
    assert (missing.status, missing.remedy) == (Status.problem, 'run: pip install "nonesuch>=1"')
    assert old.status is Status.warning
    assert fine.status is Status.ok


def test_a_decoder_that_is_missing_names_its_package(monkeypatch: pytest.MonkeyPatch) -> None:
    from pydicom.pixels.decoders.base import Decoder

    monkeypatch.setattr(Decoder, "is_available", property(lambda self: False))
    found = list(software.decoders(SETTINGS))
    assert {finding.status for finding in found} == {Status.warning}
    assert any("pip install pyjpegls" in (finding.remedy or "") for finding in found)


def test_a_full_disk_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setenv("DRAGONFLY_MODELS", str(tmp_path / "not" / "there" / "yet"))
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda place: usage._replace(free=10**9))
    found = only(storage.disk(SETTINGS))
    assert found.status is Status.warning
    assert found.detail == f"1 GB free in {tmp_path}"


def test_a_models_folder_that_takes_no_model_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    monkeypatch.setenv("DRAGONFLY_MODELS", str(tmp_path / "file"))
    found = only(storage.disk(SETTINGS))
    assert found.status is Status.warning
    assert found.detail == f"{tmp_path / 'file'} is not a folder, so no model can be stored"
    monkeypatch.setenv("DRAGONFLY_MODELS", str(tmp_path))
    monkeypatch.setattr(storage.os, "access", lambda place, mode: False)
    assert "is not writable" in only(storage.disk(SETTINGS)).detail


def test_a_full_disk_below_the_cache_is_a_warning(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(storage.shutil, "disk_usage", lambda place: usage._replace(free=10**6))
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache, temporary = storage.cache(SETTINGS)
    assert (cache.status, cache.detail) == (Status.warning, f"the disk of {tmp_path} is full")
    assert temporary.status is Status.warning


def test_no_folder_for_temporary_files_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", list)
    found = next(storage.cache(SETTINGS))
    assert (found.name, found.status) == ("temporary files", Status.warning)
    assert "TMPDIR" in str(found.remedy)


@pytest.mark.parametrize(
    "trouble", [ImportError("no libthing.so"), OSError("libthing.so: bad ELF"), RuntimeError("a\nb")]
)
def test_a_broken_library_is_a_problem_and_the_rest_is_still_told(
    trouble: Exception, monkeypatch: pytest.MonkeyPatch
) -> None:
    def look(settings: DoctorSettings):
        raise trouble
        yield

    monkeypatch.setattr(examination, "CHECKS", (look, software.python))
    outcome = dragonfly("doctor")
    assert outcome.code == 9
    first, second, third = outcome.stdout.splitlines()
    assert first == f"problem  look: cannot be checked: {' '.join(str(trouble).split())}"
    assert "broken" in second
    assert third.startswith("ok       python")


def test_an_imaging_library_that_does_not_load_is_a_problem(monkeypatch: pytest.MonkeyPatch) -> None:
    assert only(software.imaging(SETTINGS)).status is Status.ok
    monkeypatch.setitem(sys.modules, "imagecodecs._jpeg8", None)
    found = only(software.imaging(SETTINGS))
    assert (found.name, found.status) == ("imaging", Status.problem)
    assert "imagecodecs" in found.detail and "imagecodecs" in (found.remedy or "")


def test_a_cache_that_cannot_be_written_is_a_warning(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(storage.os, "access", lambda place, mode: False)
    assert [finding.status for finding in storage.cache(SETTINGS)] == [Status.warning, Status.warning]


def test_help_imports_nothing_heavy() -> None:
    probe = "import sys; from dragonfly_cli.doctor.finding import ok; print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", probe], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
