"""Folders of DICOM files: series told apart, slices in the order of the body, and what is odd is said."""

import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_files import save_dicom, write_dicom, write_png, write_svs
from make_series import AXIAL, CT, SAGITTAL, heights, write_ct, write_slice
from pydicom.dataelem import RawDataElement
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    MRSpectroscopyStorage,
    RLELossless,
    RTDoseStorage,
    SegmentationStorage,
)
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.dicom.index import Slice
from dragonfly_cli.readers.dicom.places import on_disk
from dragonfly_cli.readers.dicom.series import group
from dragonfly_cli.readers.inputs import list_inputs


@pytest.fixture
def study(tmp_path: Path) -> Path:
    return write_ct(tmp_path / "study")


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
            patient="",
            study="",
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


def test_images_of_another_kind_in_the_folder_are_told(study: Path) -> None:
    write_svs(study / "slide.svs", (512, 512))
    write_png(study / "photo.png")
    (study / "report.txt").write_text("no image")
    out = dragonfly("ask", study, "Is this a CT?")
    assert "2 images of another kind in the folder were not looked at" in out.stderr and "dragonfly batch" in out.stderr


def test_a_series_as_a_table_names_it_is_asked_about_by_its_number(study: Path) -> None:
    write_slice(study / "other", 70, "7.7")
    out = dragonfly("ask", f"{study}#2", "Is this a CT?")
    expect_error(out, 3, f"no such file: {study}#2")
    assert f"it is a series of {study}: give that and --series 2" in out.stderr


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


def test_a_cut_file_of_many_frames_is_opened_once_for_all_of_them(tmp_path: Path, monkeypatch) -> None:
    """For each of them, one of a thousand frames took minutes to be refused."""
    path = write_dicom(tmp_path / "study.dcm", np.zeros((40, 32, 48), np.uint16), SeriesInstanceUID="1.2")
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    dataset.save_as(path)
    path.write_bytes(path.read_bytes()[:-20])
    read = []
    real = pydicom.dcmread
    monkeypatch.setattr("pydicom.dcmread", lambda *given, **how: (read.append(given), real(*given, **how))[1])
    expect_error(dragonfly("info", tmp_path), 4, "study.dcm")
    assert len(read) == 1


def test_the_frames_that_a_cut_file_still_has_are_shown(tmp_path: Path) -> None:
    pixels = np.stack([np.full((32, 48), 10 * number, np.uint16) for number in range(10)])
    path = write_dicom(tmp_path / "study.dcm", pixels, SeriesInstanceUID="1.2", window=(50.5, 101))
    path.write_bytes(path.read_bytes()[: -6 * 32 * 48 * 2])
    source = open_source(tmp_path)
    assert (source.frames, source.view(Box(0, 0, 1, 1), 3).getpixel((0, 0))[0]) == (10, 76)
    with pytest.raises(InputError, match="damaged or incomplete"):
        source.view(Box(0, 0, 1, 1), 4)


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


def test_films_of_one_instance_uid_are_no_copies(tmp_path: Path) -> None:
    """They have neither a position nor always a number; only the same bytes are a copy."""
    for number in range(3):
        elements = {"SOPInstanceUID": "1.2", "SeriesInstanceUID": "1.3", "Modality": "DX"}
        write_dicom(tmp_path / f"{number}.dcm", np.full((20, 20), 80 * number, np.uint8), **elements)
    shutil.copy(tmp_path / "2.dcm", tmp_path / "copy.dcm")
    source = open_source(tmp_path)
    assert source.frames == 3
    assert any(warning.startswith("1 file was left out: a copy") for warning in source.warnings)


def test_slices_at_one_place_are_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    """But for rounding they are; one kind of several can be asked about."""
    noise = np.random.default_rng(0).normal(0, 1e-5, 12)
    for number in range(12):
        place = {"ImagePositionPatient": [0, 0, 10.0 * (number // 6) + noise[number]], "InstanceNumber": number}
        write_slice(tmp_path / "study" / f"{number}", 8 * number, **place)
    source = open_source(tmp_path / "study")
    assert heights(source) == list(range(0, 96, 8))
    assert any("--slice 0::6 takes the first of each place" in warning for warning in source.warnings)


def test_spacing_that_is_rounded_otherwise_is_one_spacing(tmp_path: Path) -> None:
    for number in range(6):
        write_slice(tmp_path / "study" / f"{number}", 10 * number, PixelSpacing=[(0.7035, 0.70349)[number % 2]] * 2)
    assert open_source(tmp_path / "study").frames == 6


@pytest.mark.filterwarnings("ignore:Invalid value for VR")
@pytest.mark.parametrize(
    "odd", [{"InstanceNumber": b"7777A "}, {"ImagePositionPatient": b"0\\0\\5,12345 "}, {"PixelSpacing": b"0,5\\0,5 "}]
)
def test_a_number_that_is_none_costs_no_picture(tmp_path: Path, odd: dict[str, bytes]) -> None:
    for number in range(3):
        path = write_slice(tmp_path / "study" / f"{number}", 10 * number, InstanceNumber=number)
        dataset = pydicom.dcmread(path)
        for keyword, value in odd.items():
            element = dataset[keyword]
            dataset[keyword] = RawDataElement(element.tag, element.VR, len(value), value, 0, False, True)
        save_dicom(path, dataset)
    assert open_source(tmp_path / "study").frames == 3
    assert open_source(tmp_path / "study" / "0").frames == 1


def test_a_deflated_series_is_no_smaller_than_it_was(study: Path) -> None:
    """A header cannot be read from the first part of a deflated file alone."""
    noise = np.random.default_rng(0).integers(0, 2**15, (300, 300), np.uint16)
    for path in study.iterdir():
        dataset = pydicom.dcmread(path)
        dataset.Rows, dataset.Columns, dataset.PixelData = 300, 300, noise.tobytes()
        assert save_dicom(path, dataset, DeflatedExplicitVRLittleEndian).stat().st_size > 2**16
    source = open_source(study)
    assert (source.frames, source.size_wh, source.warnings) == (10, (300, 300), [])


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


@pytest.mark.parametrize("unplaced", [(), (2,), (0, 1, 2, 3)])
def test_an_empty_slice_is_not_as_bright_as_the_uptake_beside_it(tmp_path: Path, unplaced: tuple[int, ...]) -> None:
    """Every slice fills its 16 bits by a slope of its own; stretched each by itself they would all look alike."""
    for height, most in enumerate((10, 20, 20000, 10)):
        nowhere = {"ImagePositionPatient": []} if height in unplaced else {}
        write_uptake(tmp_path / "study" / f"{height}", height, most, **nowhere)
    source = open_source(tmp_path / "study")
    faint, faint_too, strong, _ = brightness(source)
    assert strong > 100 and max(faint, faint_too) == 0
    assert source.details()["window"]["origin"] == "percentile" and any(
        "no window" in warning for warning in source.warnings
    )
    assert brightness(open_source(tmp_path / "study" / "0"))[0] > 100  # by itself it is all that is known


def test_frames_without_a_window_share_one(tmp_path: Path) -> None:
    noise = np.random.default_rng(0).integers(0, 100, (3, 32, 48)).astype(np.uint16)
    noise[1] *= 500
    faint, strong, _ = brightness(open_source(write_dicom(tmp_path / "a", noise)))
    assert faint == 0 and strong > 100


@pytest.mark.parametrize(
    ("window", "odd"), [("2", {}), ("bone", {"RescaleType": "US"}), ("101,50.5", {"photometric": "RGB"})]
)
def test_a_slice_that_a_window_cannot_be_applied_to_is_left_out(tmp_path: Path, window: str, odd: dict) -> None:
    for height in range(4):
        about = {"WindowCenter": [50.5, 20.5], "WindowWidth": [101, 41]} if height != 2 else odd
        write_slice(tmp_path / "study" / f"{height}", height, **about)
    if window == "101,50.5":
        place = {"ImageOrientationPatient": AXIAL, "ImagePositionPatient": [0, 0, 2], "SeriesInstanceUID": "1.2.3"}
        colour = np.zeros((32, 48, 3), np.uint8)
        write_dicom(tmp_path / "study" / "2", colour, **CT | place | odd)
    outcome = dragonfly("ask", tmp_path / "study", "Is there a tumour?", "--window", window, "--json")
    assert [field["frame"] for field in outcome.json["fields"]] == [0, 1, 3]
    assert "1 of 4 frames could not be read and were left out: 2" in outcome.json["warnings"]
    expect_error(dragonfly("ask", tmp_path / "study", "Is it?", "--window", window, "--frame", "2"), 4, "--window")


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


def test_a_series_without_positions_goes_by_number(tmp_path: Path) -> None:
    for number in (10, 9, 2):
        elements = {"ImagePositionPatient": None, "ImageOrientationPatient": None, "InstanceNumber": number}
        write_slice(tmp_path / f"IM{number}", 10 * number, **{key: value for key, value in elements.items() if value})
        dataset = pydicom.dcmread(tmp_path / f"IM{number}")
        del dataset.ImagePositionPatient
        dataset.save_as(tmp_path / f"IM{number}")
    source = open_source(tmp_path)
    assert heights(source) == [20, 90, 100] and "instance numbers" in source.warnings[0]


def test_pixels_of_one_slice_are_read_without_those_of_the_others(study: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    opened: list[str] = []
    real = pydicom.dcmread
    monkeypatch.setattr(pydicom, "dcmread", lambda *args, **how: opened.append(str(args[0])) or real(*args, **how))
    source = open_source(study)
    before = len(opened)
    assert before <= 1  # the first slice, for its window and scale
    source.view(Box(0, 0, *source.size_wh), 7)
    assert len(opened) == before + 1
