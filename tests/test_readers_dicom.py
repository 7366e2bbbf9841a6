"""A DICOM file as a source: which are pictures, their frames, shape and encoding; and no patient in sight."""

import logging
import warnings

import numpy as np
import pydicom
import pytest
from dicom_display import RAMP, gray, item, shown
from make_files import save_dicom, write_dicom
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    RLELossless,
)
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source


@pytest.mark.parametrize(
    ("written", "told"),
    [
        ("SMITH JOHN", "not a defined term"),
        ("\x1b[31mCT", "not a defined term"),
        ("ct", "CT"),
        ("DS", "DS"),
        ("", None),
    ],
)
def test_a_modality_is_told_only_where_it_is_one(tmp_path, written, told):
    folder = tmp_path / "study"
    folder.mkdir()
    for name in "ab":
        path = write_dicom(folder / name, RAMP, Modality="ABCDEFGHIJ", SeriesInstanceUID=f"1.{ord(name)}")
        path.write_bytes(path.read_bytes().replace(b"ABCDEFGHIJ", written.encode().ljust(10)))
    facts = [dragonfly("info", place, "--json").json for place in (path, folder)]
    assert [each["modality"] for each in facts] == [told, told] and facts[1]["series"][0]["modality"] == told
    told_of = [dragonfly("info", place) for place in (path, folder)] + [dragonfly("info", folder, "--series", "9")]
    text = " ".join(outcome.stdout + outcome.stderr for outcome in told_of)
    assert "SMITH" not in text and "\x1b" not in text and (told or "no modality") in text


def test_a_transfer_syntax_that_is_no_uid_is_not_told(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", RAMP)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    save_dicom(path, dataset, "1.2.840.10008.1.2.4.102")
    path.write_bytes(path.read_bytes().replace(b"1.2.840.10008.1.2.4.102", b"1.2.840.10008.SMITHJOHN"))
    outcome = dragonfly("view", path, "-o", tmp_path / "a.png")
    expect_error(outcome, 4, "a private transfer syntax")
    assert "SMITH" not in outcome.stderr


def test_what_is_not_meant_to_be_looked_at_is_told(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, PresentationIntentType="FOR PROCESSING", window=(2048, 4096))
    outcome = dragonfly("view", path, "--what", "display", "-o", tmp_path / "a.png")
    assert outcome.code == 0 and "for processing, not for display" in outcome.stderr


@pytest.mark.parametrize(("kind", "words"), [("overlay", "has overlays"), ("mask", "mask frame"), ("flow", "colours")])
def test_what_a_viewer_would_add_or_take_away_is_told(tmp_path, kind, words):
    path = write_dicom(tmp_path / "a", RAMP, window=(2048, 4096))
    assert open_source(path).warnings == []
    dataset = pydicom.dcmread(path)
    if kind == "mask":
        dataset.RecommendedViewingMode = "SUB"
    elif kind == "flow":
        dataset.add_new("RedPaletteColorLookupTableDescriptor", "US", [16, 4080, 16])
    else:
        dataset.add_new(0x60020010, "US", 64)
        dataset.add_new(0x60023000, "OW", bytes(512))
    dataset.save_as(path)
    (told,) = open_source(path).warnings
    assert words in told


@pytest.mark.parametrize(("declared", "taken"), [(None, 1), (2, 2), (3, 3)])
def test_frames_that_the_header_passes_over_are_told(tmp_path, declared, taken):
    path = write_dicom(tmp_path / "a", np.stack([RAMP] * 3), window=(2048, 4096), NumberOfFrames=declared)
    source = open_source(path)
    assert source.frames == taken and gray(path)[-1, -1] > 0
    assert [("room for 3 frames" in sentence) for sentence in source.warnings] == [True] * (taken < 3)


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
@pytest.mark.parametrize(("wrong", "surplus"), [({"Columns": 63}, 128), ({"Rows": 61}, 384), ({}, 0)])
def test_pixels_that_are_more_than_the_header_says_are_told(tmp_path, syntax, wrong, surplus):
    """Each row begins a little later than the one above then, as of a picture that is sheared."""
    path = write_dicom(tmp_path / "a", RAMP, window=(2048, 4096), **wrong)
    source = open_source(save_dicom(path, pydicom.Dataset(pydicom.dcmread(path)), syntax))
    told = [f"its pixel data is {surplus} bytes longer than its header declares: its rows may be shifted"]
    assert source.warnings == told * bool(surplus)


def test_a_byte_that_makes_an_even_number_is_no_surplus(tmp_path):
    assert open_source(write_dicom(tmp_path / "a", RAMP[:63, :63].astype(np.uint8))).warnings == []


def test_bits_that_are_called_packed_and_lie_in_whole_bytes_are_refused(tmp_path):
    """Unpacked, they would be noise."""
    path = write_dicom(tmp_path / "a.dcm", RAMP, BitsAllocated=12, BitsStored=12, HighBit=11)
    expect_error(dragonfly("info", path), 4, "a.dcm", "1 x 12 bits, but they lie in whole bytes")


def test_functional_groups_give_each_frame_its_own_window_and_rescale(tmp_path):
    pixels = np.stack([RAMP, RAMP])
    shared = item(
        PixelMeasuresSequence=Sequence([item(PixelSpacing=[0.5, 0.5])]),
        PixelValueTransformationSequence=Sequence([item(RescaleSlope=1, RescaleIntercept=-1000)]),
    )
    frames = [
        item(FrameVOILUTSequence=Sequence([item(WindowCenter=center, WindowWidth=200)])) for center in (-900, 900)
    ]
    path = write_dicom(
        tmp_path / "a",
        pixels,
        bits_stored=12,
        SharedFunctionalGroupsSequence=Sequence([shared]),
        PerFrameFunctionalGroupsSequence=Sequence(frames),
    )
    source = open_source(path)
    assert (source.frames, source.size_wh, source.mpp) == (2, (64, 64), (500.0, 500.0))
    flat = [gray(path, frame).reshape(-1) for frame in (0, 1)]
    assert flat[0][201] == 255 and flat[1][1799] == 0 and flat[1][2001] == 255
    with pytest.raises(InputError, match="no frame 2"):
        source.view(Box(0, 0, 64, 64), 2)


def test_a_window_by_number_is_that_of_each_frame(tmp_path):
    windows = [{"WindowCenter": [9, center], "WindowWidth": [9, 200]} for center in (1000, 3000)]
    frames = [item(FrameVOILUTSequence=Sequence([item(**each)])) for each in windows]
    frames.append(item(FrameVOILUTSequence=Sequence([item(WindowCenter=9, WindowWidth=9)])))
    path = write_dicom(tmp_path / "a", np.stack([RAMP] * 3), PerFrameFunctionalGroupsSequence=Sequence(frames))
    source = open_source(path, OpenOptions(window="2"))
    whites = [int((np.asarray(source.view(Box(0, 0, 64, 64), frame))[..., 0] == 255).sum()) for frame in (0, 1)]
    assert np.abs(np.subtract(whites, [4096 - 1100, 4096 - 3100])).max() <= 1
    with pytest.raises(InputError, match="has 1 window"):
        source.view(Box(0, 0, 64, 64), 2)


def test_a_window_over_all_frames_knows_the_rescale_of_each(tmp_path):
    """The same stored values stand for 100 times as much in the second frame."""
    rescales = [item(RescaleSlope=slope, RescaleIntercept=0) for slope in (1, 100)]
    frames = [item(PixelValueTransformationSequence=Sequence([each])) for each in rescales]
    groups = {"PerFrameFunctionalGroupsSequence": Sequence(frames)}
    path = write_dicom(tmp_path / "a", np.stack([RAMP, RAMP]), bits_stored=12, **groups)
    assert gray(path, 0).max() <= 3 and gray(path, 1).max() == 255 and 120 < gray(path, 1)[32, 0] < 136


@pytest.mark.parametrize("keyword", ["ImagerPixelSpacing", "NominalScannedPixelSpacing"])
def test_pixels_of_films_have_a_shape_and_no_certain_scale(tmp_path, keyword):
    source = open_source(write_dicom(tmp_path / "a", RAMP, window=(2048, 4096), **{keyword: [0.8, 0.4]}))
    assert (source.size_wh, source.mpp) == ((64, 128), None) and "not square" in source.warnings[0]


def test_pixels_that_are_not_square_are_shown_square(tmp_path):
    """Pixel Spacing is (between rows, between columns): tall pixels make a tall picture, and nothing is thrown away."""
    source = open_source(
        write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(2048, 4096), PixelSpacing=[0.8, 0.4])
    )
    assert (source.size_wh, source.mpp, source.mpp_source) == ((64, 128), (400.0, 400.0), "file")
    assert source.details()["pixel_spacing_mm"] == [0.8, 0.4] and "not square" in source.warnings[0]
    view = np.asarray(source.view(Box(0, 0, 64, 128)))
    assert view[0, 0, 0] == 0 and view[-1, -1, 0] == 255
    wide = open_source(write_dicom(tmp_path / "b", RAMP, PixelAspectRatio=[1, 2]))
    assert wide.size_wh == (128, 64) and wide.mpp is None


def test_a_pixel_shape_that_cannot_be_right_is_left_alone(tmp_path):
    source = open_source(write_dicom(tmp_path / "a", RAMP, PixelSpacing=[0.001, 1000]))
    assert source.size_wh == (64, 64) and "cannot be right" in source.warnings[0]


@pytest.mark.parametrize("syntax", [DeflatedExplicitVRLittleEndian, ExplicitVRBigEndian])
def test_deflated_and_big_endian_files(tmp_path, syntax):
    expected = gray(write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(2048, 4096)))
    dataset = pydicom.dcmread(tmp_path / "a")
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = RAMP.astype(">u2").tobytes()
        dataset["PixelData"].VR = "OW"
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset = pydicom.Dataset(dataset)
    assert (gray(save_dicom(tmp_path / "b", dataset, syntax)) == expected).all()


@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
@pytest.mark.parametrize("photometric", ["MONOCHROME2", "RGB"])
@pytest.mark.parametrize("left_out", [("PlanarConfiguration",), ("BitsStored",), ("PixelRepresentation", "HighBit")])
def test_what_is_left_out_of_pixels_is_taken_as_usual(tmp_path, left_out, photometric, syntax):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    path = write_dicom(tmp_path / "a", pixels if photometric == "RGB" else pixels[..., 0], photometric=photometric)
    expected = shown(path)
    dataset = pydicom.dcmread(path)
    if syntax == RLELossless:
        dataset.compress(RLELossless)
    for keyword in left_out:
        dataset.pop(keyword, None)
    dataset.save_as(path)
    assert np.array_equal(shown(path), expected)


def test_segmentations_and_reports_are_named_and_refused(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.66.4")
    with pytest.raises(InputError, match="Segmentation Storage"):
        open_source(path)
    path = write_dicom(tmp_path / "b", RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11", PixelData=None)
    with pytest.raises(InputError, match="Basic Text SR Storage"):
        open_source(path)


@pytest.mark.parametrize(
    ("syntax", "hint"),
    [
        ("1.2.840.10008.1.2.4.55", "gdcmconv"),
        ("1.2.840.10008.1.2.4.102", "gdcmconv"),
        ("1.2.3.4", "gdcmconv"),
    ],
)
def test_an_undecodable_transfer_syntax_names_its_remedy(tmp_path, syntax, hint):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([b"\xff\xd8\xff\xd9"])
    dataset["PixelData"].is_undefined_length = True
    save_dicom(path, dataset, syntax)
    with pytest.raises(InputError) as caught:
        open_source(path).view(Box(0, 0, 64, 64))
    assert hint in caught.value.hint and str(path) in caught.value.message


def test_no_patient_value_leaves_the_reader(tmp_path, caplog, capfd):
    """Nor by way of pydicom, whose warnings, log lines and exceptions quote elements that it finds odd."""
    odd = {"PixelSpacing": [0.511, 0.511], "RescaleSlope": "0.733", "RescaleIntercept": "0"}
    good = write_dicom(tmp_path / "a", RAMP, BurnedInAnnotation="YES", **odd)
    strange, damaged = tmp_path / "b", tmp_path / "c"
    strange.write_bytes(good.read_bytes().replace(b"0.511\\", b"Abe! \\"))
    damaged.write_bytes(good.read_bytes().replace(b"0.733", b"Abe! "))
    with warnings.catch_warnings(record=True) as heard, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        sources = [open_source(good), open_source(strange)]
        for source in sources:
            source.view(Box(0, 0, 64, 64))
        with pytest.raises(InputError) as caught:
            open_source(damaged).view(Box(0, 0, 64, 64))
    told = "".join(repr(source.details()) + repr(source.warnings) for source in sources)
    told += caplog.text + "".join(capfd.readouterr())
    told += caught.value.message + caught.value.hint
    assert not heard and "burned into" in source.warnings[0]
    assert not [word for word in ("Nobody", "4711", "SECRET", "Abe!") if word in told]


def test_overlays_are_not_burned_in(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(2048, 4096))
    expected = gray(path)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x60000010, "US", 64)
    dataset.add_new(0x60000011, "US", 64)
    dataset.add_new(0x60003000, "OW", b"\xff" * 512)
    assert np.array_equal(gray(save_dicom(path, dataset)), expected)


def test_old_files_without_meta_information_or_photometric_interpretation(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(2048, 4096))
    expected = gray(path)
    dataset = pydicom.dcmread(path)
    del dataset.PhotometricInterpretation
    old = Dataset(dataset)
    old.save_as(tmp_path / "b", implicit_vr=True, little_endian=True)
    assert b"DICM" not in (tmp_path / "b").read_bytes()[:132]
    assert np.array_equal(gray(tmp_path / "b"), expected)


@pytest.mark.parametrize(
    ("uid", "name"),
    [
        ("1.2.840.10008.5.1.4.1.1.481.3", "RT Structure Set Storage"),
        ("1.2.840.10008.5.1.4.1.1.481.2", "RT Dose Storage"),
        ("1.2.840.10008.5.1.4.1.1.9.1.1", "12-lead ECG Waveform Storage"),
        ("1.2.840.10008.5.1.4.1.1.104.1", "Encapsulated PDF Storage"),
        ("1.2.840.10008.5.1.4.1.1.11.1", "Grayscale Softcopy Presentation State Storage"),
    ],
)
def test_what_is_no_picture_is_named(tmp_path, uid, name):
    path = write_dicom(tmp_path / "a.dcm", RAMP, SOPClassUID=uid, **({} if "Dose" in name else {"PixelData": None}))
    expect_error(dragonfly("ask", path, "Is it?"), 4, "a.dcm", name)


def test_a_file_that_ends_before_its_pixels_is_not_told_to_be_of_another_kind(tmp_path):
    film = write_dicom(tmp_path / "a.dcm", RAMP, SOPClassUID="1.2.840.10008.5.1.4.1.1.2")
    dataset = pydicom.dcmread(film)
    del dataset.PixelData
    dataset.save_as(film)
    with pytest.raises(InputError, match="ends before its pixels") as told:
        open_source(film)
    assert "copy" in told.value.hint
