"""Zips, tars and DICOMDIRs: read in memory, within limits, and what of them cannot be read is told."""

import bz2
import gzip
import io
import json
import lzma
import os
import shutil
import tarfile
import zipfile
import zlib
from contextlib import suppress
from pathlib import Path
from tempfile import TemporaryDirectory
from types import ModuleType

import numpy as np
import pydicom
import pytest
from batch_runs import TINY, may_not_write_everywhere
from make_files import write_dicom_slide
from make_series import heights, packed, write_ct, write_slice
from PIL import Image
from pydicom.fileset import FileSet
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.dicom import collection


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_ct(tmp_path / "study")


@pytest.mark.parametrize("kind", ["zip", "tar", "tgz"])
def test_an_archive_is_read_in_memory(study: Path, kind: str) -> None:
    archive = packed(study, kind)
    shutil.rmtree(study)
    before = sorted(archive.parent.rglob("*"))
    source = open_source(archive)
    assert heights(source) == list(range(10, 101, 10))
    source.close()
    assert sorted(archive.parent.rglob("*")) == before


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_in_an_archive_are_no_paths(study: Path, kind: str) -> None:
    name, content = "../../escaped.dcm", (study / "IM0").read_bytes()
    archive = study.parent / f"evil.{kind}"
    if kind == "zip":
        with zipfile.ZipFile(archive, "w") as writer:
            writer.writestr(name, content)
    else:
        with tarfile.open(archive, "w") as writer:
            link = tarfile.TarInfo("link.dcm")
            link.type, link.linkname = tarfile.SYMTYPE, str(study / "IM1")
            writer.addfile(link)
            member = tarfile.TarInfo(name)
            member.size = len(content)
            writer.addfile(member, io.BytesIO(content))
    assert heights(open_source(archive)) == [100]
    assert not list(study.parent.parent.glob("**/escaped.dcm"))


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_an_archive_that_is_too_large_is_refused(study: Path, kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    archive = packed(study, kind)
    monkeypatch.setattr(collection, "MAX_TOTAL_BYTES", 20_000)
    expect_error(dragonfly("info", archive), 4, archive.name, "more than")


@pytest.mark.parametrize(
    "content", [b"PK\3\4 and no more", b"\x1f\x8b\x08 and no more", b"BZh91AY&SY", b"PK\5\6" + bytes(18)]
)
def test_broken_and_empty_archives_are_refused(tmp_path: Path, content: bytes) -> None:
    (tmp_path / "a.zip").write_bytes(content)
    expect_error(dragonfly("info", tmp_path / "a.zip"), 4, "a.zip")


@pytest.mark.parametrize("damaged", [1, 10])
def test_a_zip_is_refused_only_where_none_of_its_members_can_be_unpacked(study: Path, damaged: int) -> None:
    archive = packed(study, "zip")
    content = bytearray(archive.read_bytes())
    with zipfile.ZipFile(archive) as reader:
        members = [member for member in reader.infolist() if not member.is_dir()]
    for member in members[-damaged:]:
        start = member.header_offset + 30 + len(member.filename)
        content[start : start + 30] = b"\xff" * 30
    archive.write_bytes(content)
    if damaged == len(members):
        expect_error(dragonfly("info", archive), 4, archive.name, "damaged")
        return
    facts = dragonfly("info", archive, "--json").json
    number = sorted(member.filename for member in members).index(members[-1].filename) + 1
    assert (
        facts["frames"] == 9
        and f"1 of 10 files could not be read and were left out: number {number} by name" in (facts["warnings"])
    )


CUTS = {"nothing is left": 0, "in the preamble": 100, "in the meta information": 200, "before its size": 500}


@pytest.mark.parametrize("cut", CUTS)
@pytest.mark.parametrize("kind", ["folder", "zip", "tar"])
def test_a_slice_whose_header_is_cut_is_told_by_its_number(study: Path, kind: str, cut: str) -> None:
    bad = study / "IM4"
    bad.write_bytes(bad.read_bytes()[: CUTS[cut]])
    source = open_source(study if kind == "folder" else packed(study, kind))
    assert heights(source) == [10, 20, 30, 40, 50, 70, 80, 90, 100]
    assert source.warnings[0] == "1 of 10 files could not be read and were left out: number 5 by name"
    for path in study.iterdir():
        path.write_bytes(path.read_bytes()[: CUTS[cut]])
    everything = study if kind == "folder" else packed(study, kind)
    expect_error(dragonfly("info", everything), 4, everything.name, "can be read")


def test_what_was_meant_as_a_slice_and_is_none_is_told(study: Path) -> None:
    Image.new("RGB", (8, 8)).save(study / "a-photo.dcm", format="JPEG")
    (study / "b-notes.txt").write_bytes(b"")
    (study / "c-text.dcm").write_text("hello")
    (study / "d-gone.dcm").symlink_to(study / "nowhere")
    os.mkfifo(study / "e-pipe.dcm")
    source = open_source(study)
    assert source.frames == 10
    unread, of_another_kind = source.warnings
    assert unread == "2 of 12 files could not be read and were left out: numbers 11, 12 by name"
    assert of_another_kind.startswith("one image of another kind in the folder was not looked at")


def test_what_may_only_be_listed_is_told() -> None:
    with TemporaryDirectory() as name:  # pytest's own are closed to all others, from above
        folder = Path(name)
        write_slice(folder / "IM0", 10)
        write_slice(folder / "named" / "IM1", 20)
        folder.chmod(0o755)
        assert heights(open_source(folder)) == [10, 20]
        (folder / "named").chmod(0o744)
        with may_not_write_everywhere():
            source = open_source(folder)
            assert heights(source) == [10]
    assert source.warnings == ["1 of 2 files could not be read and were left out: number 2 by name"]


def test_what_a_mac_puts_beside_the_slices_of_a_zip_is_no_slice(study: Path) -> None:
    archive = packed(study, "zip")
    with zipfile.ZipFile(archive, "a") as writer:
        for path in study.iterdir():
            writer.writestr(f"__MACOSX/study/._{path.name}.dcm", b"\0\5\x16\7\0\2\0\0Mac OS X        ")
        writer.writestr("study/.DS_Store", b"")
    source = open_source(archive)
    assert (source.frames, source.warnings) == (10, [])


@pytest.mark.slow
def test_one_bad_slice_costs_itself_alone(study: Path, tmp_path: Path) -> None:
    """Two of them here: one has lost half of its pixels, one its header."""
    (study / "IM5").write_bytes((study / "IM5").read_bytes()[:-1000])
    (study / "IM7").write_bytes((study / "IM7").read_bytes()[:300])
    by_number = "1 of 10 files could not be read and were left out: number 8 by name"
    by_frame = "1 of 8 frames could not be read and were left out: 3"
    outcome = dragonfly("ask", study, "Is it?", "--json", "-m", TINY)
    assert outcome.code == 0 and {by_number, by_frame} <= set(outcome.json["warnings"])
    assert f"warning: {by_number}" in outcome.stderr and f"warning: {by_frame}" in outcome.stderr
    for what in ("crops", "fields"):
        seen = dragonfly("view", study, "--what", what, "-o", tmp_path / "seen.png")
        assert seen.code == 0 and by_number in seen.stderr and by_frame in seen.stderr
    command = ("batch", packed(study, "zip"), "-q", "Is it?", "-m", TINY, "-o", tmp_path / "out.csv")
    outcome = dragonfly(*command, "--records", tmp_path / "out.jsonl")
    assert outcome.code == 0 and f"study.zip: {by_number}" in outcome.stderr and by_frame in outcome.stderr
    assert by_number in json.loads((tmp_path / "out.jsonl").read_text())["warnings"]
    assert not [word for word in ("Nobody", "SECRET", "4711") if word in outcome.stderr]


def test_a_locked_zip_is_refused(study: Path) -> None:
    archive = packed(study, "zip")
    content = bytearray(archive.read_bytes())
    for signature, place in ((b"PK\3\4", 6), (b"PK\1\2", 8)):  # bit 0 of the flags: encrypted
        at = content.find(signature)
        while at >= 0:
            content[at + place] |= 1
            at = content.find(signature, at + 4)
    archive.write_bytes(content)
    expect_error(dragonfly("info", archive), 4, archive.name, "password")


def disc_of(study: Path, disc: Path) -> Path:
    """A folder with a DICOMDIR that names the slices of ``study``."""
    patient = {"PatientID": "1", "PatientName": "N", "StudyInstanceUID": "1.2", "StudyID": "1", "StudyDate": "20200101"}
    files = FileSet()
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword, value in (patient | {"StudyTime": "00", "SeriesNumber": 1}).items():
            setattr(dataset, keyword, value)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        files.add(dataset)
    files.write(disc)
    return disc


def test_a_dicomdir_names_its_series(study: Path, tmp_path: Path) -> None:
    disc = disc_of(study, tmp_path / "disc")
    assert heights(open_source(disc / "DICOMDIR")) == list(range(10, 101, 10))
    assert heights(open_source(disc)) == list(range(10, 101, 10))
    next(path for path in disc.rglob("IM*")).unlink()
    source = open_source(disc / "DICOMDIR")
    assert source.frames == 9 and "1 of 10 files could not be read" in " ".join(source.warnings)


@pytest.mark.parametrize("left", [0.5, 0.9, 0.99])
def test_a_dicomdir_that_is_cut_short_is_refused(study: Path, tmp_path: Path, left: float) -> None:
    """It would show a part of the series, as if that were all."""
    directory = disc_of(study, tmp_path / "disc") / "DICOMDIR"
    stored = directory.read_bytes()
    directory.write_bytes(stored[: int(left * len(stored))])
    outcome = dragonfly("info", directory)
    expect_error(outcome, 4, "its directory is cut short")
    assert "hint: give its folder" in outcome.stderr


RENAMED = {
    "lower case": str.lower,
    "a suffix": lambda name: f"{name}.dcm",
    "both": lambda name: f"{name.lower()}.DCM",
    "mixed case": str.title,
}


@pytest.mark.parametrize("how", RENAMED)
def test_files_that_a_copy_of_a_disc_has_renamed_are_found(study: Path, tmp_path: Path, how: str) -> None:
    disc = disc_of(study, tmp_path / "disc")
    for path in sorted(disc.rglob("*"), reverse=True):
        if path.name != "DICOMDIR":
            path.rename(path.with_name(RENAMED[how](path.name) if path.is_file() else path.name.lower()))
    source = open_source(disc / "DICOMDIR")
    assert (heights(source), source.warnings) == (list(range(10, 101, 10)), [])


def test_a_dicomdir_whose_files_are_not_there_is_no_reason_not_to_try_its_folder(study: Path, tmp_path: Path) -> None:
    disc = disc_of(study, tmp_path / "disc")
    for number, path in enumerate(path for path in disc.rglob("*") if path.is_file() and path.name != "DICOMDIR"):
        path.rename(disc / str(number))
    outcome = dragonfly("info", disc / "DICOMDIR")
    expect_error(outcome, 4, "none of the DICOM files", "can be read")
    assert "hint: give its folder" in outcome.stderr
    assert open_source(disc).frames == 10


@pytest.mark.parametrize("name", ["A" * 300, "A\0B"])
def test_a_name_in_a_dicomdir_that_no_file_can_have_is_that_of_a_missing_one(
    study: Path, tmp_path: Path, name: str
) -> None:
    directory = disc_of(study, tmp_path / "disc") / "DICOMDIR"
    dataset = pydicom.dcmread(directory)
    last = [record for record in dataset.DirectoryRecordSequence if "ReferencedFileID" in record][-1]
    last.add_new("ReferencedFileID", "CS", name)
    dataset.save_as(directory)
    assert "1 of 10 files could not be read" in open_source(directory).warnings[0]


def test_a_dicomdir_may_not_name_files_elsewhere(study: Path) -> None:
    assert collection._inside(study / "..", ["study", "IM0"], collection._entries) == study / ".." / "study" / "IM0"
    assert collection._inside(study, ["..", "study", "IM0"], collection._entries) is None
    assert collection._inside(study, ["/", "etc", "passwd"], collection._entries) is None
    (study / "door").symlink_to(study.parent)
    assert collection._inside(study, ["door", "study", "IM0"], collection._entries) is not None  # leads back inside
    (study.parent / "outside").write_bytes(b"")
    assert collection._inside(study, ["door", "outside"], collection._entries) is None


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    expect_error(dragonfly("ask", tmp_path, "Is it?"), 4, "no DICOM series")


def test_slices_of_one_name_in_an_archive_are_each_shown(tmp_path: Path) -> None:
    """Some programs write every slice as one name, and ``tar -r`` appends."""
    slices = [write_slice(tmp_path / f"IM{height}", height) for height in (20, 50, 80)]
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as packed, pytest.warns(UserWarning, match="Duplicate name"):
        for file in slices:
            packed.write(file, "image.dcm")
    with tarfile.open(tmp_path / "a.tar", "w") as archive:
        for file in slices:
            archive.add(file, "image.dcm")
    for name in ("a.zip", "a.tar"):
        assert heights(open_source(tmp_path / name)) == [20, 50, 80]


@pytest.mark.parametrize("kind", ["tar", "tgz"])
def test_a_tar_that_ends_between_two_members_is_refused(study: Path, kind: str) -> None:
    archive = packed(study, kind)
    unpack, pack = (gzip.decompress, gzip.compress) if kind == "tgz" else (bytes, bytes)
    stored = unpack(archive.read_bytes())
    with tarfile.open(archive) as opened:
        third = opened.getmembers()[2].offset
    for damaged in (stored[:third], stored[: third + 200], stored[:third] + b"?" * 512 + stored[third + 512 :]):
        archive.write_bytes(pack(damaged))
        expect_error(dragonfly("info", archive), 4, archive.name, "cut short, or damaged")


@pytest.mark.parametrize("compression", [gzip, bz2, lzma], ids=["gz", "bz2", "xz"])
def test_a_packed_archive_whose_checksum_is_wrong_is_refused(
    study: Path, compression: ModuleType, request: pytest.FixtureRequest
) -> None:
    archive = study.with_suffix(f".tar.{request.node.callspec.id}")
    archive.write_bytes(stored := compression.compress(packed(study, "tar").read_bytes()))
    assert dragonfly("info", archive).code == 0
    for place in range(len(stored) // 4, len(stored), len(stored) // 8):
        damaged = stored[:place] + bytes([stored[place] ^ 16]) + stored[place + 1 :]
        with suppress(OSError, EOFError, zlib.error, lzma.LZMAError):
            compression.decompress(damaged)
            continue  # it was a bit on which nothing depends
        archive.write_bytes(damaged)
        expect_error(dragonfly("info", archive), 4, archive.name)


def test_a_packed_slide_or_photograph_is_to_be_unpacked(tmp_path: Path) -> None:
    write_dicom_slide(tmp_path / "slide.dcm", np.zeros((64, 64, 3), np.uint8), "1.2.3", 0)
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    for name in ("slide.dcm", "a.png"):
        with tarfile.open(tmp_path / "a.tar", "w") as archive:
            archive.add(tmp_path / name, name)
        refused = dragonfly("ask", tmp_path / "a.tar", "Is it?")
        expect_error(refused, 4, "no DICOM series")
        assert "hint: unpack it" in refused.stderr


def test_a_broken_archive_member_is_one_bad_file(study: Path) -> None:
    archive = packed(study, "zip")
    content = bytearray(archive.read_bytes())
    at = content.find(b"DICM", len(content) // 2)
    content[at - 200 : at + 300] = bytes(500)
    archive.write_bytes(content)
    try:
        assert open_source(archive).frames <= 10
    except InputError as error:
        assert archive.name in error.message
