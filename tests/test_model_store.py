"""``dragonfly model`` without a network: convert, list, show, verify, rm, and which model ``ask`` then takes."""

import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from batch_runs import files_limited_to
from make_checkpoints import tensors, write_checkpoint, write_weights
from PIL import Image
from run_dragonfly import dragonfly, expect_error
from safetensors.torch import load_file

from dragonfly_cli.doctor import storage
from dragonfly_cli.doctor.finding import DoctorSettings
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.store import convert, folder
from dragonfly_cli.store.manifest import read_manifest


@pytest.fixture
def photo(tmp_path: Path) -> Path:
    Image.effect_noise((300, 200), 90).convert("RGB").save(tmp_path / "photo.png")
    return tmp_path / "photo.png"


@pytest.fixture
def small_shards(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that the tiny checkpoint needs several of them."""
    monkeypatch.setattr(convert, "SHARD_BYTES", 100_000)


def stored_tensors(place: Path) -> dict[str, torch.Tensor]:
    return {name: tensor for file in place.glob("*.safetensors") for name, tensor in load_file(file).items()}


@pytest.mark.parametrize(("architecture", "shards"), [("v1", 1), ("v2", 2)])
def test_a_converted_folder_keeps_every_weight(
    tmp_path: Path, models_folder: Path, architecture: str, shards: int
) -> None:
    origin = write_checkpoint(tmp_path / "mine", architecture, shards)
    before = sorted(origin.rglob("*"))
    outcome = dragonfly("model", "convert", origin)
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == f"{models_folder / 'mine'}\n"
    full = models_folder / "mine" / "full"
    assert sorted(origin.rglob("*")) == before
    assert (full / "LICENSE").is_file()
    assert not list(full.glob("*.bin*"))
    expected, found = tensors(architecture), stored_tensors(full)
    assert found.keys() == expected.keys()
    assert all(found[name].dtype == torch.bfloat16 and torch.equal(found[name], expected[name]) for name in expected)
    assert sorted(path.name for path in (models_folder / "mine").iterdir()) == ["full", "manifest.json"]


def test_a_stored_model_answers_by_its_name(tmp_path: Path, photo: Path) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine", shards=2)).code == 0
    record = dragonfly("ask", photo, "Is it?", "-m", "mine", "--json").json
    assert record["model"]["id"] == "mine"
    assert record["model"]["sha256"] == find_checkpoint("mine").sha256()
    assert not any("not Dragonfly-Med" in warning for warning in record["warnings"])


@pytest.mark.parametrize("inside", ["mine/full", "mine/original", "mine"])
def test_a_folder_within_the_store_is_not_replaced_by_its_model(models_folder: Path, inside: str) -> None:
    folder = write_checkpoint(models_folder / inside)
    before = {path: path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    expect_error(dragonfly("model", "convert", folder, "--name", "mine"), 2, "would be stored in this folder itself")
    assert {path: path.read_bytes() for path in models_folder.rglob("*") if path.is_file()} == before
    assert dragonfly("model", "convert", folder, "--name", "other").code == 0


def test_shards_are_small_and_open_as_one(tmp_path: Path, models_folder: Path, small_shards: None) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine", shards=2)).code == 0
    full = models_folder / "mine" / "full"
    names = sorted(path.name for path in full.glob("*.safetensors"))
    assert len(names) > 5
    assert names[0] == f"model-00001-of-{len(names):05d}.safetensors"
    weight_map = json.loads((full / "model.safetensors.index.json").read_text())["weight_map"]
    assert weight_map.keys() == tensors().keys()
    from dragonfly_med import DragonflyForCausalLM

    network = DragonflyForCausalLM.from_pretrained(full, dtype=torch.bfloat16)
    assert torch.equal(network.language_model.lm_head.weight, tensors()["language_model.lm_head.weight"])


def test_an_interrupted_conversion_goes_on(
    tmp_path: Path, models_folder: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    written: list[str] = []
    really_write = convert._write_shard

    def write_three(shard, part):
        if len(written) == 3:
            raise KeyboardInterrupt
        written.append(shard.name)
        return really_write(shard, part)

    monkeypatch.setattr(convert, "_write_shard", write_three)
    assert dragonfly("model", "convert", origin).code != 0
    assert "mine  not finished" in dragonfly("model", "list").stdout
    expect_error(dragonfly("model", "show", "mine"), 5, "mine", "not on this machine")
    assert not (models_folder / "mine" / "full").exists()

    def write_others(shard, part):
        assert shard.name not in written
        return really_write(shard, part)

    monkeypatch.setattr(convert, "_write_shard", write_others)
    assert dragonfly("model", "convert", origin).code == 0
    assert stored_tensors(models_folder / "mine" / "full").keys() == tensors().keys()
    assert dragonfly("model", "verify").code == 0


def test_half_done_work_on_other_weights_is_not_used(
    tmp_path: Path, models_folder: Path, small_shards: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    with monkeypatch.context() as patch:
        patch.setattr(convert, "_finish", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        assert dragonfly("model", "convert", origin).code != 0
    changed = {name: tensor + 1 for name, tensor in tensors().items()}
    write_weights(origin, changed)
    assert dragonfly("model", "convert", origin).code == 0
    found = stored_tensors(models_folder / "mine" / "full")
    assert all(torch.equal(found[name], changed[name]) for name in changed)


def test_a_copy_without_its_manifest_does_not_exist(tmp_path: Path, models_folder: Path) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    assert dragonfly("model", "convert", origin).code == 0
    (models_folder / "mine" / "manifest.json").unlink()
    expect_error(dragonfly("model", "verify", "mine"), 5, "not on this machine")
    with pytest.raises(Exception, match="no such model"):
        find_checkpoint("mine")
    assert dragonfly("model", "convert", origin).code == 0
    assert dragonfly("model", "verify", "mine").code == 0


def test_a_clone_of_a_published_repository_is_known_and_auto_takes_it(tmp_path: Path) -> None:
    assert find_checkpoint("auto").id == "demo"
    clone = write_checkpoint(tmp_path / "Llama-3-8B-Dragonfly-Med-v1")
    assert dragonfly("model", "convert", clone).code == 0
    assert find_checkpoint("auto").id == "med-v1"
    assert dragonfly("model", "convert", clone, "--name", "med-v2").code == 0
    assert find_checkpoint("auto").id == "med-v2"
    assert find_checkpoint("togethercomputer/Llama-3.1-8B-Dragonfly-Med-v2").id == "med-v2"
    assert dragonfly("model", "rm", "med-v2").code == 0
    assert find_checkpoint("auto").id == "med-v1"
    assert "non-commercial" in dragonfly("model", "show", "med-v1").stdout


def test_list_and_show(tmp_path: Path, models_folder: Path) -> None:
    assert dragonfly("model", "list").stdout == "demo  built in  dragonfly-v1\n"
    assert [row["id"] for row in dragonfly("model", "list", "--json").json] == ["demo"]
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "x"), "--name", "lab/tuned").code == 0
    row = dragonfly("model", "list", "--json").json[1]
    assert (row["id"], row["status"], row["copies"]) == ("lab/tuned", "ready", ["full"])
    facts = dragonfly("model", "show", "lab/tuned", "--json").json
    assert facts["architecture"] == "dragonfly-v1"
    assert facts["copies"]["full"] == row["size"] == sum(file["size"] for file in facts["files"])
    assert facts["folder"] == str(models_folder / "lab--tuned")
    assert facts["parameters"] == sum(tensor.numel() for tensor in tensors().values())
    (original,) = facts["original"]
    assert original["path"] == "pytorch_model.bin"
    assert original["sha256"] == folder.sha256_of(tmp_path / "x" / "pytorch_model.bin")
    text = dragonfly("model", "show", "lab/tuned").stdout
    assert all(file["sha256"] in text for file in facts["files"])


def test_verify_tells_what_has_changed(tmp_path: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    outcome = dragonfly("model", "verify")
    assert outcome.code == 0
    assert outcome.stdout.startswith("mine: unchanged, ")
    full = models_folder / "mine" / "full"
    with (full / "model.safetensors").open("rb+") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"\x7f")
    (full / "LICENSE").unlink()
    (full / "extra.txt").write_text("?")
    outcome = dragonfly("model", "verify", "mine")
    assert outcome.code == 9
    assert outcome.stdout.splitlines()[1:] == [
        "mine: full/LICENSE: is missing",
        "mine: full/model.safetensors: has changed",
        "mine: full/extra.txt: is not part of the model",
    ]
    error, hint = outcome.stderr.splitlines()
    assert error == "error: mine: not as stored"
    assert "dragonfly model rm mine" in hint


def test_verify_takes_a_folder_wherever_it_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    converted = dragonfly("model", "convert", write_checkpoint(tmp_path / "plain"), "--name", "mine")
    printed = Path(converted.stdout.strip())
    assert dragonfly("model", "verify", printed).stdout.startswith("mine: unchanged, ")
    monkeypatch.chdir(tmp_path)
    printed.rename("moved")
    assert dragonfly("model", "verify", "moved", tmp_path / "moved").stdout.count("mine: unchanged, ") == 2
    (tmp_path / "moved" / "full" / "LICENSE").unlink()
    changed = dragonfly("model", "verify", "moved")
    assert (changed.code, changed.stdout.splitlines()[1:]) == (9, ["mine: full/LICENSE: is missing"])
    assert "model rm" not in changed.stderr
    expect_error(dragonfly("model", "verify", "plain"), 5, "model plain", "manifest.json")
    expect_error(dragonfly("model", "verify", tmp_path / "nowhere"), 5, "nowhere")


def test_removed_is_removed(tmp_path: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    assert dragonfly("model", "rm", "mine").code == 0
    assert not (models_folder / "mine").exists()
    expect_error(dragonfly("model", "rm", "mine"), 5, "mine", "not on this machine")


def test_what_is_no_model_is_neither_listed_nor_removed(tmp_path: Path, models_folder: Path) -> None:
    """The store may have been set to a folder with other things in it: a home, a study."""
    film = models_folder / "study" / "original" / "film.dcm"
    film.parent.mkdir(parents=True)
    film.write_text("?")
    (models_folder / "empty").mkdir()
    assert dragonfly("model", "list").stdout.count("\n") == 1
    (models_folder / "page" / "full").mkdir(parents=True)
    (models_folder / "page" / "manifest.json").write_text('{"name": "my page"}')
    assert dragonfly("model", "list").code == 0
    for name in ("study", "empty", "page"):
        expect_error(dragonfly("model", "rm", name), 5, name, "not on this machine")
    assert film.is_file()
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    (models_folder / "mine" / "notes.txt").write_text("?")
    assert dragonfly("model", "rm", "mine").code == 0
    assert [path.name for path in (models_folder / "mine").iterdir()] == ["notes.txt"]
    assert dragonfly("model", "list").stdout.count("\n") == 1


def test_a_taken_name_is_not_overwritten(tmp_path: Path) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    assert dragonfly("model", "convert", origin).code == 0
    assert dragonfly("model", "convert", origin).code == 0  # the same one: nothing is left to do
    write_weights(origin, {name: tensor + 1 for name, tensor in tensors().items()})
    expect_error(dragonfly("model", "convert", origin), 5, "mine", "already")


def test_the_disk_is_asked_before(tmp_path: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    expect_error(dragonfly("model", "convert", origin), 7, "not enough disk space", "1.0 kB free")
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda place: SimpleNamespace(free=60_000_000))
    expect_error(dragonfly("model", "convert", origin), 7, "kB needed and 67.1 MB to spare, 60.0 MB free")
    assert not (models_folder / "mine").exists()


def test_a_disk_that_is_full_before_the_end(tmp_path: Path, models_folder: Path) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    for keep in ("full", "both"):
        with files_limited_to(100_000):
            expect_error(dragonfly("model", "convert", origin, "--keep", keep), 7, str(models_folder), "File too large")
        assert dragonfly("model", "convert", origin, "--keep", keep).code == 0
        copies = ["full", "nf4"] if keep == "both" else ["full"]
        assert sorted(path.name for path in (models_folder / "mine").iterdir()) == sorted([*copies, "manifest.json"])
        assert dragonfly("model", "verify", "mine").code == 0


def test_a_store_that_may_not_be_read(tmp_path: Path, models_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It was called damaged, and to be removed."""
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    read_text = Path.read_text

    def refuse(path: Path, *args: object, **kwargs: object) -> str:
        if path.name == "manifest.json":
            raise PermissionError(13, "Permission denied")
        return read_text(path, *args, **kwargs)

    monkeypatch.setattr(Path, "read_text", refuse)
    outcome = dragonfly("model", "show", "mine")
    expect_error(outcome, 5, str(models_folder / "mine" / "manifest.json"), "Permission denied")
    assert "model rm" not in outcome.stderr


def test_a_checkpoint_that_may_not_be_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    access = os.access
    for name in ("pytorch_model.bin", "tokenizer.json"):
        monkeypatch.setattr(os, "access", lambda path, mode, name=name: Path(path).name != name and access(path, mode))
        expect_error(dragonfly("model", "convert", origin), 5, str(origin / name), "may not read")


def test_folders_that_cannot_be(tmp_path: Path, photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    expect_error(dragonfly("ask", photo, "Is it?", "-m", "~no-such-user/model"), 2, "~no-such-user", "home folder")
    monkeypatch.setenv("DRAGONFLY_MODELS", str(tmp_path / ("x" * 300)))
    expect_error(dragonfly("model", "rm", "mine"), 7, "name too long")
    monkeypatch.setenv("DRAGONFLY_MODELS", "~no-such-user/models")
    for call in (
        "list",
        "verify",
        "show mine",
        "rm mine",
        "pull med-v1",
        f"convert {write_checkpoint(tmp_path / 'x')}",
    ):
        expect_error(dragonfly("model", *call.split()), 2, "~no-such-user/models", "home folder")


def test_the_folder_that_is_printed_can_be_asked(tmp_path: Path, photo: Path) -> None:
    printed = dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).stdout.strip()
    record = dragonfly("ask", photo, "Is it?", "-m", printed, "--json").json
    assert record["model"]["id"] == printed
    assert record["model"]["sha256"] == find_checkpoint("mine").sha256()


def test_a_folder_of_links_is_followed(tmp_path: Path, models_folder: Path) -> None:
    """As the hub's own cache is."""
    blobs = write_checkpoint(tmp_path / "blobs")
    snapshot = tmp_path / "mine"
    (snapshot / "image_encoder").mkdir(parents=True)
    for name in ("image_encoder/config.json", *(path.name for path in blobs.iterdir() if path.is_file())):
        (snapshot / name).symlink_to(blobs / name)
    (snapshot / "README.md").symlink_to(tmp_path / "gone")
    assert dragonfly("model", "convert", snapshot).code == 0
    assert not any(path.is_symlink() for path in models_folder.rglob("*"))
    assert stored_tensors(models_folder / "mine" / "full").keys() == tensors().keys()


@pytest.mark.parametrize("kind", [torch.float8_e4m3fn, torch.float16, torch.float32, torch.float64], ids=str)
def test_numbers_of_any_width_stay_as_they_are(tmp_path: Path, models_folder: Path, kind: torch.dtype) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    write_weights(origin, {name: tensor.to(kind) for name, tensor in tensors().items()})
    assert dragonfly("model", "convert", origin).code == 0
    assert {tensor.dtype for tensor in stored_tensors(models_folder / "mine" / "full").values()} == {kind}


def test_pickles_from_before_there_were_zip_files(tmp_path: Path, models_folder: Path) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    torch.save(tensors(), origin / "pytorch_model.bin", _use_new_zipfile_serialization=False)
    assert dragonfly("model", "convert", origin).code == 0
    assert stored_tensors(models_folder / "mine" / "full").keys() == tensors().keys()


def test_two_processes_do_not_work_on_one_model(tmp_path: Path, models_folder: Path) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    with folder.locked(models_folder / "lab--mine"):
        expect_error(dragonfly("model", "convert", origin, "--name", "lab/mine"), 5, "lab/mine", "another dragonfly")
    assert dragonfly("model", "convert", origin).code == 0
    with folder.locked(models_folder / "mine"):
        expect_error(dragonfly("model", "rm", "mine"), 5, "mine", "another dragonfly")
        # of a store that may only be read, no lock can be had
        assert dragonfly("model", "export", "mine", "-o", tmp_path / "mine.tar").code == 0


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("DRAGONFLY_MODELS", str(tmp_path / "file"))
    expect_error(dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")), 7, "file")
    assert dragonfly("model", "list").code == 0


class _Trap:
    def __reduce__(self):
        return os.system, ("echo opened > trap.txt",)


def test_a_pickle_is_never_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    origin = write_checkpoint(tmp_path / "mine")
    torch.save({**tensors(), "trap": _Trap()}, origin / "pytorch_model.bin")
    expect_error(dragonfly("model", "convert", origin), 5, "pytorch_model.bin", "other than tensors")
    (origin / "pytorch_model.bin").write_bytes(pickle.dumps(_Trap()))
    expect_error(dragonfly("model", "convert", origin), 5, "pytorch_model.bin")
    assert not (tmp_path / "trap.txt").exists()


def _without_one(origin: Path) -> None:
    weights = tensors()
    del weights["vision_embed_tokens.bias"]
    write_weights(origin, weights)


def _cut_short(origin: Path) -> None:
    whole = (origin / "pytorch_model.bin").read_bytes()
    (origin / "pytorch_model.bin").write_bytes(whole[: len(whole) // 2])


def _nothing_but_digits(origin: Path) -> None:
    write_weights(origin, {name: (100 * tensor).to(torch.int8) for name, tensor in tensors().items()})


def _one_that_is_no_number(origin: Path) -> None:
    weights = tensors()
    weights["language_model.model.norm.weight"][-1] = float("nan")
    write_weights(origin, weights)


def _one_that_has_no_end(origin: Path) -> None:
    weights = tensors()
    weights["vision_embed_tokens.bias"][0] = -float("inf")
    write_weights(origin, weights)


def _without_names(origin: Path) -> None:
    torch.save({**tensors(), 3: torch.zeros(1)}, origin / "pytorch_model.bin")


def _sparse(origin: Path) -> None:
    weights = tensors()
    weights["vision_embed_tokens.weight"] = weights["vision_embed_tokens.weight"].float().to_sparse()
    write_weights(origin, weights)


def _cloned_without_lfs(origin: Path) -> None:
    (origin / "pytorch_model.bin").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n")


def _with_index(content: bytes) -> Callable[[Path], None]:
    def spoil(origin: Path) -> None:
        (origin / "pytorch_model.bin").unlink()
        (origin / "pytorch_model.bin.index.json").write_bytes(content)

    return spoil


def _changed_config(**changes: object) -> Callable[[Path], None]:
    def spoil(origin: Path) -> None:
        file = origin / "config.json"
        file.write_text(json.dumps(json.loads(file.read_text()) | changes))

    return spoil


@pytest.mark.parametrize(
    ("spoil", "words"),
    [
        (_nothing_but_digits, ["mine", "no floating-point numbers", "int8"]),
        (_one_that_is_no_number, ["mine", "pytorch_model.bin", "language_model.model.norm.weight", "no numbers"]),
        (_one_that_has_no_end, ["mine", "vision_embed_tokens.bias", "no numbers"]),
        (_without_names, ["mine", "pytorch_model.bin", "without names"]),
        (_sparse, ["mine", "vision_embed_tokens.weight", "sparse"]),
        (_cloned_without_lfs, ["mine", "pytorch_model.bin", "git lfs pull"]),
        (_with_index(b"[" * 10**5), ["mine", "index.json is damaged"]),
        (_with_index(b"\xff\xfe{"), ["mine", "index.json is damaged"]),
        (_with_index(b'{"weight_map": {"x": "../../x.bin"}}'), ["mine", "../../x.bin is missing"]),
        (_changed_config(quantization_config={"load_in_4bit": True}), ["config.json", "quantized"]),
        (lambda origin: (origin / "adapter_config.json").write_text("{}"), ["mine", "adapter"]),
        (_changed_config(image_encoder="/usr"), ["mine", "unknown vision encoder '/usr'"]),
        (_changed_config(text_config={"num_hidden_layers": 10**9}), ["mine", "1000000000 layers"]),
        (lambda origin: (origin / "config.json").write_text("[" * 10**5), ["config.json is damaged"]),
        (lambda origin: (origin / "tokenizer.json").unlink(), ["mine", "no tokenizer.json"]),
        (lambda origin: (origin / "tokenizer.json").write_text("{}"), ["mine", "tokenizer"]),
        (_without_one, ["vision_embed_tokens.bias is missing"]),
        (_cut_short, ["pytorch_model.bin", "damaged"]),
        (lambda origin: (origin / "pytorch_model.bin").unlink(), ["no weights"]),
        (lambda origin: (origin / "config.json").unlink(), ["no config.json"]),
        (lambda origin: (origin / "config.json").write_text("{"), ["config.json"]),
        (lambda origin: (origin / "config.json").write_text('{"model_type": "llama"}'), ["mine", "model_type llama"]),
        (lambda origin: shutil.rmtree(origin), ["no such folder"]),
        (lambda origin: write_weights(origin, {**tensors(), "x": torch.zeros(1)}), ["x is not part of the network"]),
    ],
)
def test_what_is_no_whole_checkpoint_is_refused(tmp_path: Path, models_folder: Path, spoil, words: list[str]) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    spoil(origin)
    expect_error(dragonfly("model", "convert", origin), 5, *words)
    assert read_manifest(models_folder / "mine") is None
    assert not (models_folder / "mine").exists()


def test_a_missing_shard_is_named(tmp_path: Path) -> None:
    origin = write_checkpoint(tmp_path / "mine", shards=2)
    (origin / "pytorch_model-00002-of-00002.bin").unlink()
    expect_error(dragonfly("model", "convert", origin), 5, "pytorch_model-00002-of-00002.bin is missing")


def test_the_built_in_model_is_shown_and_stays(tmp_path: Path) -> None:
    facts = dragonfly("model", "show", "demo", "--json").json
    checkpoint = find_checkpoint("demo")
    assert facts["folder"] == str(checkpoint.folder)
    assert facts["architecture"] == json.loads((checkpoint.folder / "config.json").read_text())["architecture"]
    assert facts["licence"] in (checkpoint.folder / "CARD.md").read_text()
    assert checkpoint.sha256() in [file["sha256"] for file in facts["files"]]
    assert 1e6 < facts["parameters"] < 1e7
    for call in (["verify", "demo"], ["export", "demo", "-o", tmp_path / "demo.tar"], ["rm", "demo"], ["pull", "demo"]):
        expect_error(dragonfly("model", *call), 5, "model demo: it is built in")
    expect_error(dragonfly("model", "convert", write_checkpoint(tmp_path / "x"), "--name", "demo"), 5, "built in")


def test_where_nothing_is_stored_verify_says_so(models_folder: Path) -> None:
    outcome = dragonfly("model", "verify")
    assert (outcome.code, outcome.stdout) == (0, "")
    assert outcome.stderr == "note: no model is stored on this machine\n"


@pytest.mark.parametrize("name", ["auto", "../up", "a--b", "a/b/c", ".hidden", "a..b", "sp ace"])
def test_names_that_no_model_can_have(tmp_path: Path, name: str) -> None:
    origin = write_checkpoint(tmp_path / "mine")
    expect_error(dragonfly("model", "convert", origin, "--name", name), 5, "not a name for a model")
    expect_error(dragonfly("model", "rm", name), 5, name)


def test_a_damaged_manifest_is_an_error_and_not_another_model(tmp_path: Path, models_folder: Path, photo: Path) -> None:
    for name in ("med-v2", "other"):
        assert dragonfly("model", "convert", write_checkpoint(tmp_path / name), "--name", name).code == 0
    (models_folder / "med-v2" / "manifest.json").write_text("{}")
    expect_error(dragonfly("model", "show", "med-v2"), 5, "manifest.json")
    expect_error(dragonfly("ask", photo, "Is it?"), 5, "manifest.json")  # auto would have been med-v2
    for model in ("other", "demo"):
        assert dragonfly("ask", photo, "Is it?", "-m", model).code == 0
    assert dragonfly("model", "rm", "med-v2").code == 0
    assert find_checkpoint("auto").id == "demo"


@pytest.mark.parametrize("damaged", ["", "{}", "[" * 10**5, '{"manifest_version": 2}', None])
def test_a_damaged_model_does_not_hide_the_others(tmp_path: Path, models_folder: Path, damaged: str | None) -> None:
    for name in ("a", "b", "c"):
        assert dragonfly("model", "convert", write_checkpoint(tmp_path / name)).code == 0
    manifest = models_folder / "b" / "manifest.json"
    manifest.unlink()
    manifest.mkdir() if damaged is None else manifest.write_text(damaged)
    listed, as_json, verified = (dragonfly("model", *call) for call in (["list"], ["list", "--json"], ["verify"]))
    assert [row["status"] for row in as_json.json] == ["built in", "ready", "damaged", "ready"]
    assert [line.split()[:2] for line in listed.stdout.splitlines()[1:]] == [
        ["a", "ready"],
        ["b", "damaged"],
        ["c", "ready"],
    ]
    assert [line.split(",")[0] for line in verified.stdout.splitlines()] == [
        "a: unchanged",
        "b: damaged",
        "c: unchanged",
    ]
    assert [listed.code, as_json.code, verified.code] == [5, 5, 9]
    for outcome in (listed, as_json):
        (error, hint) = outcome.error_lines
        assert error.startswith("error: ") and str(manifest) in error
        assert hint.startswith("hint: ")
    (told,) = [each for each in storage.models(DoctorSettings()) if each.name == "stored models"]
    assert str(manifest) in told.detail
    assert dragonfly("model", "rm", "b").code == 0
    assert dragonfly("model", "list").code == 0


def test_a_model_that_was_moved_and_linked_is_removed_with_its_link(tmp_path: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    (models_folder / "mine").rename(tmp_path / "elsewhere")
    (models_folder / "mine").symlink_to(tmp_path / "elsewhere")
    assert dragonfly("model", "verify", "mine").code == 0
    assert dragonfly("model", "rm", "mine").code == 0
    assert not (tmp_path / "elsewhere").exists()
    assert not (models_folder / "mine").is_symlink()


def test_errors_below_model_are_the_same_two_lines() -> None:
    expect_error(dragonfly("model", "show"), 2, "NAME")
    expect_error(dragonfly("model", "no-such-command"), 2, "no-such-command")
    expect_error(dragonfly("model", "list", "--no-such-option"), 2, "--no-such-option")
    assert "Usage" in dragonfly("model", "--help").stdout
    assert dragonfly("model").stderr.startswith("Usage: ")
