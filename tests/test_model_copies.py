"""The 4-bit copy of a stored model: made from the full one, listed when it is whole, opened when 4 bit is asked for."""

import csv
import shutil
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace

import pytest
import torch
from batch_runs import may_not_write_everywhere
from make_checkpoints import write_checkpoint
from make_files import write_png, write_svs
from run_dragonfly import dragonfly, expect_error

import dragonfly_med.quantization
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import load_model
from dragonfly_cli.option_values import Quant
from dragonfly_cli.store import copies, folder
from dragonfly_med import CheckpointError


@pytest.fixture
def origin(tmp_path: Path) -> Path:
    return write_checkpoint(tmp_path / "mine", shards=2)


def weights_in(place: Path) -> int:
    return sum(path.stat().st_size for path in place.glob("*.safetensors"))


def test_both_copies_by_name(origin: Path, models_folder: Path, tmp_path: Path) -> None:
    outcome = dragonfly("model", "convert", origin, "--keep", "both")
    assert outcome.code == 0, outcome.stderr
    assert "4-bit copy" in outcome.stderr
    place = models_folder / "mine"
    assert sorted(path.name for path in place.iterdir()) == ["full", "manifest.json", "nf4"]
    assert weights_in(place / "nf4") < 0.9 * weights_in(place / "full")
    assert dragonfly("model", "list", "--json").json[1]["copies"] == ["full", "nf4"]
    assert dragonfly("model", "verify", "mine").code == 0
    slide = write_svs(tmp_path / "slide.svs")
    full, in_4_bit = (
        dragonfly("ask", slide, "Is it?", "-m", "mine", "--quant", quant, "--device", "cpu", "--json").json
        for quant in ("none", "4bit")
    )
    assert full["model"]["quantization"] == "none"
    assert in_4_bit["model"]["quantization"] == "nf4"
    assert full["model"]["sha256"] != in_4_bit["model"]["sha256"]
    assert in_4_bit["probabilities"]["yes"] == pytest.approx(full["probabilities"]["yes"], abs=0.3)


def test_whoever_may_read_the_manifest_may_read_the_weights(origin: Path, models_folder: Path) -> None:
    """safetensors writes for the owner alone, and then a store cannot be shared."""
    assert dragonfly("model", "convert", origin, "--keep", "both").code == 0
    stored = models_folder / "mine"
    weights = list(stored.rglob("*.safetensors"))
    assert {file.parent.name for file in weights} == {"full", "nf4"}
    assert {file.stat().st_mode for file in weights} == {(stored / "manifest.json").stat().st_mode}


def test_weights_of_a_shared_store_that_may_not_be_read_are_told_as_such(monkeypatch: pytest.MonkeyPatch) -> None:
    with TemporaryDirectory() as name:  # pytest's own are closed to all others, from above
        place = Path(name)
        monkeypatch.setenv("DRAGONFLY_MODELS", str(place / "models"))
        assert dragonfly("model", "convert", write_checkpoint(place / "mine")).code == 0
        weights = place / "models" / "mine" / "full" / "model.safetensors"
        weights.chmod(0o600)
        place.chmod(0o777)
        photo = write_png(place / "photo.png")
        with may_not_write_everywhere():
            for told in (
                dragonfly("ask", photo, "Is it?", "-m", "mine"),
                dragonfly("model", "export", "mine", "-o", place / "mine.tar"),
            ):
                expect_error(told, 5, str(weights), "Permission denied")
                assert "hint: ask whoever keeps the models here for permission" in told.stderr
        assert not (place / "mine.tar").exists()


def test_the_written_copy_is_opened_and_not_the_full_one(origin: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", origin, "--keep", "both").code == 0
    checkpoint = find_checkpoint("mine")
    assert checkpoint.folder == models_folder / "mine" / "full"
    assert checkpoint.in_4_bit and checkpoint.in_4_bit.folder == models_folder / "mine" / "nf4"
    for file in checkpoint.folder.glob("*.safetensors"):
        file.unlink()
    model = load_model(checkpoint, "cpu", Quant.four_bit)
    assert model.identity.sha256 == checkpoint.in_4_bit.sha256()
    assert model.network.language_model.model.layers[0].mlp.up_proj.weight.dtype == torch.uint8


def test_what_the_4_bit_copy_answered_is_calibrated(origin: Path, models_folder: Path, tmp_path: Path) -> None:
    """``run.json`` has the hash of the full one, which is the first."""
    assert dragonfly("model", "convert", origin, "--keep", "both").code == 0
    answers = tmp_path / "answers.csv"
    asked = ("-q", "Is it?", "-m", "mine", "--quant", "4bit", "--device", "cpu", "-o", answers)
    assert dragonfly("batch", write_png(tmp_path / "photo.png"), *asked).code == 0
    with answers.open(newline="") as file:
        (row,) = csv.DictReader(file)
    with answers.open("w", newline="") as file:
        writer = csv.DictWriter(file, [*row, "truth"])
        writer.writeheader()
        writer.writerows(row | {"image": f"{n}.png", "truth": "yes" if n % 2 else "no"} for n in range(12))
    outcome = dragonfly("calibrate", answers)
    assert outcome.code == 0, outcome.stderr
    in_4_bit = find_checkpoint("mine").in_4_bit
    assert in_4_bit
    assert f"{in_4_bit.sha256()}-nf4.json" in outcome.stderr


def test_the_4_bit_copy_alone(origin: Path, models_folder: Path) -> None:
    outcome = dragonfly("model", "convert", origin, "--keep", "nf4")
    assert outcome.code == 0, outcome.stderr
    assert sorted(path.name for path in (models_folder / "mine").iterdir()) == ["manifest.json", "nf4"]
    assert dragonfly("model", "verify", "mine").code == 0
    assert find_checkpoint("mine").folder == models_folder / "mine" / "nf4"
    assert load_model(find_checkpoint("mine"), "cpu").identity.quantization == "nf4"
    again = dragonfly("model", "convert", origin, "--keep", "both")
    assert again.code == 0
    assert "only the 4-bit copy is here" in again.stderr


def test_an_interrupted_quantization_goes_on(
    origin: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    place = models_folder / "mine"

    def stop(full: Path, out: Path) -> None:
        (out.with_name(".nf4.1.partial")).mkdir()
        out.mkdir()
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(dragonfly_med.quantization, "write_quantized", stop)
        assert dragonfly("model", "convert", origin, "--keep", "both").code != 0
    assert (place / "nf4").exists()
    assert find_checkpoint("mine").in_4_bit is None
    assert dragonfly("model", "verify", "mine").code == 0
    shutil.rmtree(origin / "image_encoder")  # not needed again, and neither is the conversion
    assert dragonfly("model", "convert", origin, "--keep", "both").code == 0
    assert sorted(path.name for path in place.iterdir()) == ["full", "manifest.json", "nf4"]
    assert dragonfly("model", "verify", "mine").code == 0
    assert load_model(find_checkpoint("mine"), "cpu", Quant.four_bit).identity.quantization == "nf4"


@pytest.mark.parametrize(("wanted", "left"), [("nf4", "full"), ("full", "nf4")])
def test_what_a_kill_has_left_of_the_other_copy_is_deleted(
    origin: Path, models_folder: Path, wanted: str, left: str
) -> None:
    """As after a kill while the full copy was deleted, or the 4-bit one written."""
    assert dragonfly("model", "convert", origin, "--keep", wanted).code == 0
    place = models_folder / "mine"
    rests = [place / left] + [place / ".nf4.1.partial"] * (left == "nf4")
    for rest in rests:
        rest.mkdir()
        (rest / "model.safetensors").write_bytes(b"weights")
    assert dragonfly("model", "convert", origin, "--keep", wanted).code == 0
    assert sorted(path.name for path in place.iterdir()) == sorted(["manifest.json", wanted])


def test_without_bitsandbytes(origin: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(copies, "has_bitsandbytes", lambda: False)
    expect_error(dragonfly("model", "convert", origin, "--keep", "nf4"), 5, "without bitsandbytes")
    assert not (models_folder / "mine").exists()
    outcome = dragonfly("model", "convert", origin, "--keep", "both")
    assert outcome.code == 0
    assert "bitsandbytes is not installed" in outcome.stderr
    assert find_checkpoint("mine").in_4_bit is None


def test_what_quantization_refuses(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(full: Path, out: Path) -> None:
        raise CheckpointError("something is wrong with it")

    monkeypatch.setattr(dragonfly_med.quantization, "write_quantized", refuse)
    expect_error(dragonfly("model", "convert", origin, "--keep", "both"), 5, "mine", "something is wrong with it")
    assert dragonfly("model", "verify", "mine").code == 0


def test_a_card_without_room_for_quantizing(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(full: Path, out: Path) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(dragonfly_med.quantization, "write_quantized", refuse)
    expect_error(dragonfly("model", "convert", origin, "--keep", "both"), 6, "mine", "out of memory")
    assert dragonfly("model", "verify", "mine").code == 0


def test_the_disk_is_asked_before_quantizing(origin: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert dragonfly("model", "convert", origin, "--keep", "full").code == 0
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    expect_error(dragonfly("model", "convert", origin, "--keep", "both"), 7, "not enough disk space", "4-bit copy")


def test_a_dry_run_changes_nothing(origin: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", origin, "--name", "med-v2").code == 0
    before = sorted(models_folder.rglob("*"))
    outcome = dragonfly("model", "pull", "med-v2", "--keep", "nf4", "--dry-run")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert sorted(models_folder.rglob("*")) == before


def test_one_copy_is_exported(origin: Path, models_folder: Path, tmp_path: Path) -> None:
    assert dragonfly("model", "convert", origin, "--keep", "both").code == 0
    sizes = {}
    for kept in ("both", "full", "nf4"):
        packed = tmp_path / f"{kept}.tar"
        assert dragonfly("model", "export", "mine", "--copies", kept, "-o", packed).code == 0
        sizes[kept] = packed.stat().st_size
    assert sizes["nf4"] < sizes["full"] < sizes["both"]
    assert dragonfly("model", "rm", "mine").code == 0
    assert dragonfly("model", "import", tmp_path / "nf4.tar").code == 0
    assert load_model(find_checkpoint("mine"), "cpu").identity.quantization == "nf4"
    missing = dragonfly("model", "export", "mine", "--copies", "full", "-o", tmp_path / "x.tar")
    expect_error(missing, 5, "no copy full")
