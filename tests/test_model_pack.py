"""``dragonfly model export`` and ``import``: one file for a machine without a network, and files that lie."""

import io
import json
import tarfile
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest
from make_checkpoints import write_checkpoint
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.store import folder

Members = list[tuple[tarfile.TarInfo, bytes]]


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    """An exported model that is not in the store any more."""
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    outcome = dragonfly("model", "export", "mine", "-o", tmp_path / "mine.tar")
    assert (outcome.code, outcome.stdout) == (0, ""), outcome.stderr
    assert dragonfly("model", "rm", "mine").code == 0
    return tmp_path / "mine.tar"


def contents(place: Path) -> dict[str, bytes]:
    return {path.relative_to(place).as_posix(): path.read_bytes() for path in place.rglob("*") if path.is_file()}


def test_what_was_exported_is_imported(tmp_path: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine", shards=2)).code == 0
    before = contents(models_folder / "mine")
    assert dragonfly("model", "export", "mine", "-o", tmp_path / "a.tar").code == 0
    assert dragonfly("model", "export", "mine", "-o", tmp_path / "b.tar").code == 0
    assert (tmp_path / "a.tar").read_bytes() == (tmp_path / "b.tar").read_bytes()
    expect_error(dragonfly("model", "import", tmp_path / "a.tar"), 5, "mine", "already")
    assert dragonfly("model", "rm", "mine").code == 0
    outcome = dragonfly("model", "import", tmp_path / "a.tar")
    assert outcome.stdout == f"{models_folder / 'mine'}\n"
    assert "licence" in outcome.stderr
    assert contents(models_folder / "mine") == before
    assert dragonfly("model", "verify", "mine").code == 0


def test_a_model_is_not_exported_over_itself(tmp_path: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    for own in ("manifest.json", "full/config.json"):
        expect_error(dragonfly("model", "export", "mine", "-o", models_folder / "mine" / own), 2, "it is being read")
    assert dragonfly("model", "verify", "mine").code == 0


def test_a_changed_model_is_not_exported(tmp_path: Path, models_folder: Path) -> None:
    assert dragonfly("model", "convert", write_checkpoint(tmp_path / "mine")).code == 0
    license_file = models_folder / "mine" / "full" / "LICENSE"
    for change in (lambda: license_file.write_text("B licence.\n"), lambda: license_file.write_text("")):
        change()
        expect_error(dragonfly("model", "export", "mine", "-o", tmp_path / "mine.tar"), 5, "LICENSE", "not as stored")
        assert not (tmp_path / "mine.tar").exists()
    license_file.unlink()
    expect_error(dragonfly("model", "export", "mine", "-o", tmp_path / "mine.tar"), 5, "LICENSE", "not as stored")


def rewrite(packed: Path, change: Callable[[Members], Members]) -> None:
    with tarfile.open(packed) as tar:
        members = [(member, (tar.extractfile(member) or io.BytesIO()).read()) for member in tar]
    with tarfile.open(packed, "w:") as tar:
        for member, content in change(members):
            member.size = len(content) if member.isreg() else 0
            tar.addfile(member, io.BytesIO(content))


def change_manifest(change: Callable[[dict], None]) -> Callable[[Members], Members]:
    def changed(members: Members) -> Members:
        manifest = json.loads(members[0][1])
        change(manifest)
        return [(members[0][0], json.dumps(manifest).encode()), *members[1:]]

    return changed


def renamed(name: str) -> Callable[[Members], Members]:
    """The second member under another name, in the tar and in the manifest."""

    def change(members: Members) -> Members:
        members[1][0].name = name
        return change_manifest(lambda manifest: manifest["files"][0].update(path=name))(members)

    return change


def linked(members: Members) -> Members:
    members[1][0].type = tarfile.SYMTYPE
    members[1][0].linkname = "/etc/passwd"
    return members


def with_another(members: Members) -> Members:
    return [*members, (tarfile.TarInfo("full/another.txt"), b"?")]


@pytest.mark.parametrize(
    "change",
    [
        lambda members: members[:-1],
        lambda members: members[1:],
        lambda members: [*members, members[-1]],
        lambda members: [*members[:-1], (members[-1][0], members[-1][1][:-1] + b"?")],
        lambda members: [*members[:-1], (members[-1][0], members[-1][1] + b"?")],
        lambda members: [],
        linked,
        with_another,
        renamed("../evil"),
        renamed("full/../../evil"),
        renamed("/tmp/evil"),
        renamed("full\\..\\evil"),
        renamed("manifest.json"),
        change_manifest(lambda manifest: manifest.update(id="../evil")),
        change_manifest(lambda manifest: manifest.update(id="demo")),
        change_manifest(lambda manifest: manifest.update(manifest_version=99)),
        change_manifest(lambda manifest: manifest.pop("licence")),
    ],
)
def test_a_file_that_lies_leaves_nothing(packed: Path, models_folder: Path, change) -> None:
    rewrite(packed, change)
    before = sorted(packed.parent.iterdir())
    outcome = dragonfly("model", "import", packed)
    expect_error(outcome, 5, packed.name)
    assert sorted(packed.parent.iterdir()) == before
    assert not [path for path in models_folder.rglob("*") if path.is_file() and path.suffix != ".lock"]
    assert not list(models_folder.parent.glob("evil*"))
    assert dragonfly("model", "list").stdout.count("\n") == 1


def test_files_that_are_no_exported_models(packed: Path, tmp_path: Path) -> None:
    whole = packed.read_bytes()
    packed.write_bytes(whole[: len(whole) // 2])
    expect_error(dragonfly("model", "import", packed), 5, "mine.tar", "damaged")
    packed.write_bytes(b"")
    expect_error(dragonfly("model", "import", packed), 5, "mine.tar", "damaged")
    packed.write_text("this is text")
    expect_error(dragonfly("model", "import", packed), 5, "mine.tar", "damaged")
    expect_error(dragonfly("model", "import", tmp_path / "gone.tar"), 3, "gone.tar")
    packed.write_bytes(whole)
    assert dragonfly("model", "import", packed).code == 0


def test_the_disk_is_asked_before(packed: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with monkeypatch.context() as patch:
        patch.setattr(folder.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
        expect_error(dragonfly("model", "import", packed), 7, "not enough disk space")
    assert dragonfly("model", "import", packed).code == 0
    monkeypatch.setattr(folder.shutil, "disk_usage", lambda place: SimpleNamespace(free=1000))
    expect_error(dragonfly("model", "export", "mine", "-o", tmp_path / "x.tar"), 7, "not enough disk space", "x.tar")
    expect_error(dragonfly("model", "export", "mine", "-o", tmp_path / "no" / "x.tar"), 7, "x.tar")
    expect_error(dragonfly("model", "export", "other", "-o", tmp_path / "x.tar"), 5, "other")
