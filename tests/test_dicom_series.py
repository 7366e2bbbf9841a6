"""Folders, archives and DICOMDIRs: series told apart, slices in the order of the body, and what is odd is said."""

import csv
import io
import json
import os
import shutil
import tarfile
import zipfile
from pathlib import Path

import numpy as np
import pydicom
import pytest
from batch_runs import TINY
from hypothesis import given
from hypothesis import strategies as st
from make_files import save_dicom, write_dicom
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.fileset import FileSet
from pydicom.sequence import Sequence
from pydicom.uid import DeflatedExplicitVRLittleEndian, MRSpectroscopyStorage, RTDoseStorage, SegmentationStorage
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.fields.frames import parse_slices, pick
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.dicom import collection
from dragonfly_cli.readers.dicom.index import Slice
from dragonfly_cli.readers.dicom.places import on_disk
from dragonfly_cli.readers.dicom.series import group
from dragonfly_cli.readers.inputs import list_inputs

AXIAL, SAGITTAL = [1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1]
CT = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": 0, "PixelSpacing": [1, 1]}


def write_slice(path: Path, height: float, uid: str = "1.2.3", **elements) -> Path:
    """A CT slice of one grey value, which tells its height: 0 is black, 100 white."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.full((32, 48), round(height), np.int16)
    given = {
        **CT,
        "SeriesInstanceUID": uid,
        "ImageOrientationPatient": AXIAL,
        "ImagePositionPatient": [0, 0, height],
        "SOPInstanceUID": f"{uid}.{abs(hash((path.name, height))) % 10**9}",
    } | elements
    return write_dicom(path, pixels, window=(50.5, 101), **given)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Ten slices whose names and numbers run against their position."""
    for number in range(10):
        write_slice(tmp_path / "study" / f"IM{number}", 100 - 10 * number, InstanceNumber=number)
    return tmp_path / "study"


def heights(source) -> list[int]:
    """The grey of every frame, as the height that the slice was written with."""
    box = Box(0, 0, *source.size_wh)
    return [round(float(np.asarray(source.view(box, frame))[0, 0, 0]) / 2.55) for frame in range(source.frames)]


def test_slices_are_sorted_by_position_and_not_by_number(study: Path) -> None:
    source = open_source(study)
    assert (source.kind, source.frames, source.size_wh, source.warnings) == ("dicom", 10, (48, 32), [])
    assert heights(source) == list(range(10, 101, 10))
    facts = source.details()
    assert (facts["orientation"], facts["spacing_mm"]) == ("axial", [1.0, 1.0, 10.0])
    assert [series["slices"] for series in facts["series"]] == [10]


@given(st.permutations(range(12)), st.sampled_from([AXIAL, SAGITTAL, [0.6, 0.8, 0, 0, 0, -1]]))
def test_any_order_of_files_gives_the_order_of_the_body(order, orientation) -> None:
    normal = np.cross(orientation[:3], orientation[3:])
    slices = [
        Slice(
            place=on_disk(Path(f"{name}.dcm")),
            frame=0,
            series="1.2",
            instance_uid=f"1.2.{name}",
            modality="MR",
            size_wh=(8, 8),
            spacing=(1.0, 1.0),
            orientation=tuple(map(float, orientation)),
            position=tuple(2.5 * height * normal + np.array([3, 4, 5]) * (normal == 0)),
            number=name,
            is_localizer=False,
        )
        for name, height in enumerate(order)
    ]
    (series,) = group(slices)
    assert [order[each.number] for each in series.slices] == sorted(order)
    assert series.facts()["spacing_mm"][2] == 2.5 and not series.notes


def test_the_series_with_most_slices_is_taken_and_the_others_are_named(study: Path) -> None:
    for number in range(12):
        write_slice(study / f"scout{number}", number, "9.9", ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    write_slice(study / "other", 5, "7.7", SeriesDescription="Nobody Secret")
    source = open_source(study)
    assert source.frames == 10
    assert "--series chooses another" in source.warnings[0] and "12 slices" in source.warnings[0]
    assert "localizer" in source.warnings[0] and "Secret" not in source.warnings[0]
    assert [each["localizer"] for each in source.details()["series"]].count(True) == 1


def test_a_series_is_chosen_by_number_or_uid(study: Path) -> None:
    write_slice(study / "other", 70, "7.7")
    number = next(each["number"] for each in open_source(study).details()["series"] if each["slices"] == 1)
    for wanted in (str(number), "7.7"):
        assert heights(open_source(study, OpenOptions(series=wanted))) == [70]
    with pytest.raises(UsageError, match="no such series"):
        open_source(study, OpenOptions(series="9"))
    with pytest.raises(UsageError, match="is one file"):
        open_source(study / "other", OpenOptions(series="1"))
    with pytest.raises(UsageError, match="neither a number nor a UID"):
        OpenOptions(series="Smith")


@pytest.mark.slow
def test_the_record_holds_the_number_of_the_series_and_repeats_the_answer(study: Path, tmp_path: Path) -> None:
    write_slice(study / "other", 70, "7.7")
    record = tmp_path / "answer.json"
    command = ("ask", study, "Is there a tumour?", "--series", "7.7", "--window", "101,50", "--json", "-o", record)
    assert dragonfly(*command).code == 0
    assert json.loads(record.read_text())["settings"]["series"] == "2"
    assert "7.7" not in record.read_text()
    assert dragonfly("verify", record).code == 0


def test_copies_mixed_directions_gaps_and_broken_files_are_found_and_said(study: Path) -> None:
    shutil.copy(study / "IM3", study / "IM3 (copy)")
    (study / "IM5").unlink()
    for number in range(3):
        write_slice(study / f"sag{number}", number, ImageOrientationPatient=SAGITTAL)
    (study / "broken").write_bytes((study / "IM1").read_bytes()[:300])
    write_slice(study / "again", 30)
    source = open_source(study)
    said = " ".join(source.warnings)
    assert source.frames == 10  # nine that are left, and one more where another one lies
    assert "1 file was left out: a copy" in said
    assert "slices lie where another slice lies" in said
    assert "not even: 1 gap" in said
    assert "1 of 15 files" in said
    assert [each["orientation"] for each in source.details()["series"]] == ["axial", "sagittal"]


def test_copies_of_slices_are_no_pictures_of_their_own(study: Path) -> None:
    shutil.copy(study / "IM3", study / "A copy of IM3")
    (item,) = list_inputs(study)
    source = item.open(OpenOptions())
    assert (item.name, source.frames) == (str(study), 10) and "1 file was left out: a copy" in source.warnings[0]


def test_slices_of_one_instance_uid_are_no_copies(study: Path) -> None:
    """As anonymisers leave them that replace every UID by one and the same."""
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
        dataset.save_as(path)
    source = open_source(study)
    assert (heights(source), source.warnings) == (list(range(10, 101, 10)), [])


def test_a_deflated_series_is_no_smaller_than_it_was(study: Path) -> None:
    """A header cannot be read from the first part of a deflated file alone."""
    noise = np.random.default_rng(0).integers(0, 2**15, (300, 300), np.uint16)
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.Rows, dataset.Columns, dataset.PixelData = 300, 300, noise.tobytes()
        assert save_dicom(path, dataset, DeflatedExplicitVRLittleEndian).stat().st_size > 2**16
    source = open_source(study)
    assert (source.frames, source.size_wh, source.warnings) == (10, (300, 300), [])


def grouped(height: float, tilt: float = 0.0) -> Dataset:
    """The functional groups that say where a frame lies."""
    position, orientation, groups = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, height]
    orientation.ImageOrientationPatient = [1, tilt, 0, 0, 1, 0]
    groups.PlanePositionSequence = Sequence([position])
    groups.PlaneOrientationSequence = Sequence([orientation])
    return groups


def test_files_of_one_enhanced_frame_lie_where_their_groups_say(tmp_path: Path) -> None:
    """Instance numbers run against the body here, as they do in half of all studies."""
    (tmp_path / "study").mkdir()
    for height in range(0, 100, 20):
        pixels = np.full((1, 32, 48), height, np.uint16)
        facts = {"SeriesInstanceUID": "1.2.3", "InstanceNumber": 100 - height, "SOPInstanceUID": f"1.2.3.{height}"}
        groups = {"PerFrameFunctionalGroupsSequence": Sequence([grouped(height)])}
        write_dicom(tmp_path / "study" / f"{height}", pixels, window=(50.5, 101), **facts, **groups)
    source = open_source(tmp_path / "study")
    assert heights(source) == [0, 20, 40, 60, 80]
    assert source.warnings == [] and source.details()["spacing_mm"] is None


def test_frames_whose_directions_differ_by_rounding_are_one_stack(tmp_path: Path) -> None:
    places = (30, 1e-6), (10, 0.0), (20, -1e-6)
    pixels = np.stack([np.full((32, 48), height, np.uint16) for height, _ in places])
    groups = {"PerFrameFunctionalGroupsSequence": Sequence([grouped(*place) for place in places])}
    source = open_source(write_dicom(tmp_path / "a", pixels, window=(50.5, 101), **groups))
    assert list(source.slices) == [1, 2, 0]


def frames_at(path: Path, *groups: Dataset) -> Path:
    pixels = np.stack([np.full((32, 48), 10 * number, np.uint16) for number in range(len(groups))])
    sequence = {"PerFrameFunctionalGroupsSequence": Sequence(groups), "SeriesInstanceUID": "1.2.3"}
    return write_dicom(path, pixels, window=(50.5, 101), **sequence)


def measured(groups: Dataset, spacing: float) -> Dataset:
    groups.PixelMeasuresSequence = Sequence([Dataset()])
    groups.PixelMeasuresSequence[0].PixelSpacing = [spacing, spacing]
    return groups


def test_what_is_odd_about_the_frames_of_one_file_is_told(tmp_path: Path) -> None:
    """As it is of a folder: gaps, places that are shared, and several stacks, whose order and scale nobody knows."""
    gap = open_source(frames_at(tmp_path / "a", *map(grouped, (3, 1, 2, 9, 0))))
    assert list(gap.slices) == [4, 1, 2, 0, 3] and "1 gap" in gap.warnings[0]
    shared = open_source(frames_at(tmp_path / "b", *map(grouped, (1, 1, 0))))
    assert list(shared.slices) == [2, 0, 1] and "1 of 3 slices lie where another" in shared.warnings[0]
    scales = [measured(grouped(-number), 1 + number // 2) for number in range(4)]
    several = open_source(frames_at(tmp_path / "c", *scales))
    assert list(several.slices) == [0, 1, 2, 3] and "direction or spacing" in several.warnings[0]
    assert several.mpp is None


def test_the_stack_that_is_looked_at_has_its_own_scale(tmp_path: Path) -> None:
    """It begins at the second frame here; the first one is a scout of another scale and direction."""
    scout = measured(grouped(0), 4)
    scout.PlaneOrientationSequence[0].ImageOrientationPatient = SAGITTAL
    (tmp_path / "study").mkdir()
    frames_at(tmp_path / "study" / "a", scout, measured(grouped(2), 1), measured(grouped(1), 1))
    source = open_source(tmp_path / "study")
    assert (heights(source), source.mpp) == ([20, 10], (1000.0, 1000.0))
    assert (source.details()["orientation"], source.details()["spacing_mm"]) == ("axial", [1, 1, 1])


@pytest.mark.filterwarnings("ignore:Invalid value for VR DS")
@pytest.mark.parametrize("wrong", ["nan", "inf", "1e999"])
def test_a_position_that_says_nothing_is_none(study: Path, wrong: str) -> None:
    """Numbers that compare with nothing would leave the slices in any order, without a word."""
    write_slice(study / "IM4", 60, InstanceNumber=4, ImagePositionPatient=["0", "0", wrong])
    source = open_source(study)
    assert heights(source)[0] == 100 and "positions are missing" in source.warnings[0]


def test_slices_that_are_turned_a_little_keep_their_order(tmp_path: Path) -> None:
    """A quarter of a metre from the origin, half a degree is as much as the distance of two slices."""
    for number, turn in enumerate((0, 0.01, -0.01, 0.01, -0.01)):
        place = {"ImageOrientationPatient": [1, 0, 0, 0, 1, turn], "ImagePositionPatient": [-200, -250, number]}
        write_slice(tmp_path / "study" / f"{number}", 20 * number, **place)
    source = open_source(tmp_path / "study")
    assert (heights(source), source.warnings) == ([0, 20, 40, 60, 80], [])


@pytest.mark.parametrize(
    ("kind", "modality"), [(SegmentationStorage, "SEG"), (RTDoseStorage, "RTDOSE"), (MRSpectroscopyStorage, "MR")]
)
def test_marks_and_doses_are_no_series(study: Path, kind: str, modality: str) -> None:
    """One file of them often has more frames than the study has slices, and was then taken in its stead."""
    facts = {"SOPClassUID": kind, "Modality": modality, "SeriesInstanceUID": "1.2.4"}
    write_dicom(study / "marks", np.zeros((30, 32, 48), np.uint8), **facts)
    source = open_source(study)
    assert (source.frames, source.warnings) == (10, ["1 of 11 files hold no picture"])


def write_uptake(path: Path, height: int, most: int, slope: float = 1.0, **elements) -> Path:
    """A slice of noise up to ``most``, stored over the full range as scanners for emission do; no window."""
    noise = np.random.default_rng(height).integers(0, 30000, (32, 48)).astype(np.int16)
    place = {"ImagePositionPatient": [0, 0, height], "ImageOrientationPatient": AXIAL, "SeriesInstanceUID": "1.2.3"}
    rescale = {"RescaleSlope": slope * most / 30000, "RescaleIntercept": 0}
    path.parent.mkdir(exist_ok=True)
    return write_dicom(path, noise, Modality="PT", **place | rescale | elements)


def brightness(source) -> list[float]:
    box = Box(0, 0, *source.size_wh)
    return [round(float(np.asarray(source.view(box, frame)).mean())) for frame in range(source.frames)]


def test_an_empty_slice_is_not_as_bright_as_the_uptake_beside_it(tmp_path: Path) -> None:
    """Every slice fills its 16 bits by a slope of its own; stretched each by itself they would all look alike."""
    for height, most in enumerate((10, 20, 20000, 10)):
        write_uptake(tmp_path / "study" / f"{height}", height, most)
    source = open_source(tmp_path / "study")
    faint, faint_too, strong, _ = brightness(source)
    assert strong > 100 and max(faint, faint_too) == 0
    assert source.details()["window"]["origin"] == "percentile" and "no window" in source.warnings[0]
    assert brightness(open_source(tmp_path / "study" / "0"))[0] > 100  # by itself it is all that is known


def test_frames_without_a_window_share_one(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 100, (3, 32, 48)).astype(np.uint16)
    noise[1] *= 500
    faint, strong, _ = brightness(open_source(write_dicom(tmp_path / "a", noise)))
    assert faint == 0 and strong > 100


def test_windows_that_hide_how_slices_differ_are_told(tmp_path: Path) -> None:
    for height, most in enumerate((10, 20000)):
        window = {"WindowCenter": most / 2, "WindowWidth": most}
        write_uptake(tmp_path / "study" / f"{height}", height, most, **window)
    source = open_source(tmp_path / "study")
    assert min(brightness(source)) > 100 and "cannot be compared" in source.warnings[0]
    for path in (tmp_path / "study").iterdir():
        dataset = pydicom.dcmread(path)
        dataset.WindowCenter, dataset.WindowWidth = 10000, 20000
        dataset.save_as(path)
    source = open_source(tmp_path / "study")
    assert brightness(source)[0] == 0 and not [told for told in source.warnings if "compared" in told]


def test_frames_that_the_header_does_not_describe_are_told(tmp_path: Path) -> None:
    path = frames_at(tmp_path / "a", *map(grouped, (0, 1, 2)))
    dataset = pydicom.dcmread(path)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(list(dataset.PerFrameFunctionalGroupsSequence)[:2])
    dataset.save_as(path)
    assert "describes 2 frames, of 3" in open_source(path).warnings[0]


def test_a_series_without_positions_goes_by_number(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        elements = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "InstanceNumber": number}
        write_slice(tmp_path / f"IM{number}", 10 * number, **{key: value for key, value in elements.items() if value})
        dataset = pydicom.dcmread(tmp_path / f"IM{number}")
        del dataset.ImagePositionPatient
        dataset.save_as(tmp_path / f"IM{number}")
    source = open_source(tmp_path)
    assert heights(source) == [20, 90, 100] and "instance numbers" in source.warnings[0]


def test_frames_of_one_file_have_positions_of_their_own(tmp_path: Path) -> None:
    """An enhanced CT stored from head to foot: frames keep their numbers, slices are counted in space."""
    groups = []
    for height in (100, 50, 0):
        groups.append(Dataset())
        groups[-1].PlanePositionSequence = Sequence([Dataset()])
        groups[-1].PlanePositionSequence[0].ImagePositionPatient = [0, 0, height]
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = AXIAL
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    (tmp_path / "study").mkdir()
    path = write_dicom(
        tmp_path / "study" / "enhanced",
        np.stack([np.full((32, 48), value, np.int16) for value in (100, 50, 0)]),
        window=(50.5, 101),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        SeriesInstanceUID="1.2.3",
    )
    assert heights(open_source(path)) == [100, 50, 0]
    assert list(open_source(path).slices) == [2, 1, 0]
    assert heights(open_source(tmp_path / "study")) == [0, 50, 100]
    record = dragonfly("ask", path, "Is it?", "--slice", "0", "--json").json
    assert [field["frame"] for field in record["fields"]] == [2]


def packed(study: Path, kind: str) -> Path:
    if kind == "zip":
        return Path(shutil.make_archive(str(study), "zip", study))
    return Path(shutil.make_archive(str(study), {"tar": "tar", "tgz": "gztar"}[kind], study))


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
    expect_error(dragonfly("info", everything), 4, everything.name, "no pictures that can be read")


def test_what_was_meant_as_a_slice_and_is_none_is_told(study: Path) -> None:
    Image.new("RGB", (8, 8)).save(study / "a-photo.dcm", format="JPEG")
    (study / "b-notes.txt").write_bytes(b"")
    (study / "c-text.dcm").write_text("hello")
    (study / "d-gone.dcm").symlink_to(study / "nowhere")
    os.mkfifo(study / "e-pipe.dcm")
    source = open_source(study)
    assert source.frames == 10
    assert source.warnings == ["2 of 12 files could not be read and were left out: numbers 11, 12 by name"]


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


def test_a_dicomdir_names_its_series(study: Path, tmp_path: Path) -> None:
    patient = {"PatientID": "1", "PatientName": "N", "StudyInstanceUID": "1.2", "StudyID": "1", "StudyDate": "20200101"}
    files = FileSet()
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword, value in (patient | {"StudyTime": "0", "SeriesNumber": 1}).items():
            setattr(dataset, keyword, value)
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.2"
        files.add(dataset)
    files.write(tmp_path / "disc")
    assert heights(open_source(tmp_path / "disc" / "DICOMDIR")) == list(range(10, 101, 10))
    assert heights(open_source(tmp_path / "disc")) == list(range(10, 101, 10))
    next(path for path in (tmp_path / "disc").rglob("IM*")).unlink()
    source = open_source(tmp_path / "disc" / "DICOMDIR")
    assert source.frames == 9 and "1 of 10 files could not be read" in " ".join(source.warnings)


def test_a_dicomdir_may_not_name_files_elsewhere(study: Path) -> None:
    assert collection._inside(study / "..", ["study", "IM0"]) == study / ".." / "study" / "IM0"
    assert collection._inside(study, ["..", "study", "IM0"]) is None
    assert collection._inside(study, ["/", "etc", "passwd"]) is None
    (study / "door").symlink_to(study.parent)
    assert collection._inside(study, ["door", "study", "IM0"]) is not None  # leads back inside
    (study.parent / "outside").write_bytes(b"")
    assert collection._inside(study, ["door", "outside"]) is None


def test_a_folder_without_dicom_is_refused(tmp_path: Path) -> None:
    Image.new("RGB", (8, 8)).save(tmp_path / "a.png")
    expect_error(dragonfly("ask", tmp_path, "Is it?"), 4, "no DICOM files")


def test_slices_are_asked_one_by_one_within_the_budget(study: Path) -> None:
    record = dragonfly("ask", study, "Is there a tumour?", "--budget", "3", "--json").json
    assert [(field["role"], field["frame"]) for field in record["fields"]] == [("slice", 1), ("slice", 5), ("slice", 8)]
    assert record["source"]["kind"] == "dicom" and record["source"]["sha256"] is None
    assert len(record["source"]["quickhash"]) == 64
    assert any("3 of 10 frames" in warning for warning in record["warnings"])
    record = dragonfly("ask", study, "Is there a tumour?", "--slice", "2:9:3", "--json").json
    assert [field["frame"] for field in record["fields"]] == [2, 5, 8]


def test_the_first_slice_may_be_the_broken_one(study: Path) -> None:
    dataset = pydicom.dcmread(study / "IM9")
    dataset.PixelData = b""
    dataset.save_as(study / "IM9")
    facts = dragonfly("info", study, "--json").json
    assert (facts["frames"], facts["window"]["width"]) == (10, 101)


@pytest.mark.slow
def test_a_slice_that_cannot_be_read_is_left_out_unless_it_was_asked_for(study: Path) -> None:
    dataset = pydicom.dcmread(study / "IM4")
    dataset.PixelData = dataset.PixelData[:100]
    dataset.save_as(study / "IM4")
    outcome = dragonfly("ask", study, "Is there a tumour?", "--slice", "3:8", "--json")
    assert [field["frame"] for field in outcome.json["fields"]] == [3, 4, 6, 7]
    assert any("1 of 5 frames could not be read" in warning for warning in outcome.json["warnings"])
    expect_error(dragonfly("ask", study, "Is there a tumour?", "--slice", "5"), 4, "IM4", "cut short")


def test_a_montage_shows_slices_in_reading_order(study: Path, tmp_path: Path) -> None:
    seen = tmp_path / "seen.png"
    command = ("view", study, "--what", "display", "--montage", "3x2", "--slice", "4:9", "-o", seen)
    assert dragonfly(*command).code == 0
    picture = np.asarray(Image.open(seen).convert("L"))
    assert picture.shape == (64, 144)
    tiles = [round(float(picture[32 * row + 16, 48 * column + 24]) / 2.55) for row in (0, 1) for column in (0, 1, 2)]
    assert tiles == [50, 60, 70, 80, 90, 0]
    file = tmp_path / "answer.json"
    assert dragonfly("ask", study, "Is there a tumour?", "--montage", "2x2", "--json", "-o", file).code == 0
    record = json.loads(file.read_text())
    assert dragonfly("verify", file).code == 0
    (field,) = record["fields"]
    assert field["box"] == {"x": 0, "y": 0, "width": 96, "height": 64}
    assert any("montage, 2 x 2, of frames 1, 3, 6, 8 of 10" in warning for warning in record["warnings"])


MONTAGE = ("--montage", "4x3")


def test_a_film_by_itself_is_no_montage_of_black_tiles(tmp_path: Path) -> None:
    film = write_dicom(tmp_path / "film.dcm", np.random.default_rng(0).integers(0, 255, (40, 50), np.uint8))
    plain, arranged = (dragonfly("ask", film, "Is there a tumour?", "--json", *more) for more in ((), MONTAGE))
    assert arranged.json["probabilities"] == plain.json["probabilities"]
    assert any("--montage is for several frames" in warning for warning in arranged.json["warnings"])


WRONG_USAGE = {
    "a slice that is no slice": ("--slice", "a:b"),
    "a step of nothing": ("--slice", "0:5:0"),
    "a montage that is none": ("--montage", "3"),
    "a frame and a slice": ("--frame", "1", "--slice", "2"),
    "a slice beyond the last": ("--slice", "10"),
    "a frame beyond the last": ("--frame", "10"),
}


@pytest.mark.parametrize("name", WRONG_USAGE)
def test_wrong_usage_is_told_before_a_model_is_loaded(study: Path, name: str) -> None:
    expect_error(dragonfly("ask", study, "Is it?", *WRONG_USAGE[name]), 2, WRONG_USAGE[name][0])


@given(st.integers(1, 60), st.integers(0, 70), st.integers(0, 70), st.integers(1, 9))
def test_slices_are_counted_as_python_counts(count: int, first: int, last: int, step: int) -> None:
    expected = list(range(count))[first:last:step]
    if expected:
        assert pick(range(count), f"{first}:{last}:{step}", "x") == expected
    else:
        with pytest.raises(UsageError):
            pick(range(count), f"{first}:{last}:{step}", "x")
    assert parse_slices(str(first)) == first


def test_a_batch_has_one_item_for_a_series(study: Path, tmp_path: Path) -> None:
    for number in range(3):
        write_slice(study / f"z{number}", 10 * number, "8.8")
    write_slice(study / "alone", 10, "7.7")
    Image.new("RGB", (64, 48), "pink").save(study / "photo.png")
    command = ("batch", study, "-q", "Is there a tumour?", "--budget", "2", "-o", tmp_path / "out.csv")
    assert dragonfly(*command).code == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))
    names = [f"{study}#1", f"{study}/alone", f"{study}/photo.png", f"{study}#2"]
    assert [row["image"] for row in rows] == names
    assert [row["status"] for row in rows] == ["ok"] * 4
    again = dragonfly(*command)
    assert "4 of 4 images are done" in again.stderr
    assert len(list(csv.DictReader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))) == 4


def test_a_batch_of_one_series_is_called_by_its_folder(study: Path, tmp_path: Path) -> None:
    for number in range(10):  # the same pictures of somebody else: a zip of what lies there is left out
        write_slice(tmp_path / "other" / f"IM{number}", 100 - 10 * number, "1.2.4")
    archive = packed(tmp_path / "other", "zip")
    outcome = dragonfly(
        "batch", study, archive, "-q", "Is there a tumour?", "--budget", "1", "-o", tmp_path / "out.csv"
    )
    assert outcome.code == 0
    rows = list(csv.DictReader((tmp_path / "out.csv").open(newline="", encoding="utf-8")))
    assert [row["image"] for row in rows] == [str(study), str(archive)]
    assert rows[0]["p_yes"] == rows[1]["p_yes"]


@pytest.mark.slow
def test_nothing_of_the_patient_is_told(study: Path) -> None:
    uid = "1.2.826.0.1.3680043.8.498.4711"
    for path in list(study.iterdir()):
        dataset = pydicom.dcmread(path)
        dataset.SeriesInstanceUID, dataset.StudyInstanceUID = uid, uid + ".1"
        dataset.SeriesDescription = dataset.InstitutionName = dataset.ReferringPhysicianName = "Nobody Secret"
        dataset.AccessionNumber = "ID-4711-SECRET"
        dataset.save_as(path)
    write_slice(study / "other", 5, "7.7", SeriesDescription="Nobody Secret")
    told = [dragonfly("info", study), dragonfly("info", study, "--json"), dragonfly("ask", study, "Is it?", "--json")]
    told += [dragonfly("info", study, "--series", "9"), dragonfly("ask", study, "Is it?", "-v")]
    text = " ".join(outcome.stdout + outcome.stderr for outcome in told)
    assert not [word for word in ("Nobody", "SECRET", "4711", "1.2.826", "7.7") if word in text]
    assert json.loads(told[1].stdout)["series"][0]["modality"] == "CT"


def test_pixels_of_one_slice_are_read_without_those_of_the_others(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **how: opened.append(str(args[0])) or real(*args, **how))
    source = open_source(study)
    before = len(opened)
    assert before <= 1  # the first slice, for its window and scale
    source.view(Box(0, 0, *source.size_wh), 7)
    assert len(opened) == before + 1


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
