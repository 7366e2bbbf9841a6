"""DICOM as a viewer would show it: direction of grey, windows, tables, frames, colours; and no patient in sight."""

import logging
import warnings
from io import BytesIO

import numpy as np
import pydicom
import pytest
from make_files import SHARED_DATA, save_dicom, swapping_profile, write_dicom, write_png
from PIL import Image
from PIL.ImageCms import ImageCmsProfile, createProfile
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    JPEGBaseline8Bit,
    RLELossless,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source

RAMP = np.arange(4096, dtype=np.uint16).reshape(64, 64)


def shown(path, frame=0):
    """The display of a frame, [rows, columns, 3] uint8."""
    source = open_source(path)
    return np.asarray(source.view(Box(0, 0, *source.size_wh), frame))


def gray(path, frame=0):
    values = shown(path, frame)
    assert (values[..., 0] == values[..., 1]).all() and (values[..., 0] == values[..., 2]).all()
    return values[..., 0]


def item(**elements):
    dataset = Dataset()
    for keyword, value in elements.items():
        setattr(dataset, keyword, value)
    return dataset


def table(entries, first=0, bits=8):
    lut = item(LUTDescriptor=[len(entries), first, bits])
    lut.add_new("LUTData", "US", [int(entry) for entry in entries])
    return Sequence([lut])


def oracle(path):
    """What pydicom makes of the first frame, scaled to 8 bits; before any inversion."""
    dataset = pydicom.dcmread(path)
    values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
    signed = dataset.PixelRepresentation == 1
    bits = dataset.BitsStored
    edges = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1], float)
    low, high = edges * float(dataset.get("RescaleSlope", 1)) + float(dataset.get("RescaleIntercept", 0))
    return np.rint((values - low) / (high - low) * 255).astype(int)


def test_monochrome1_shows_zero_bright_and_monochrome2_dark(tmp_path):
    one = gray(write_dicom(tmp_path / "1", RAMP, photometric="MONOCHROME1", bits_stored=12))
    two = gray(write_dicom(tmp_path / "2", RAMP, photometric="MONOCHROME2", bits_stored=12))
    assert one[0, 0] == 255 and one[-1, -1] == 0
    assert two[0, 0] == 0 and two[-1, -1] == 255


def test_inversion_comes_after_the_window(tmp_path):
    """A window over the low values alone: everything above it is black in MONOCHROME1."""
    path = write_dicom(tmp_path / "a", RAMP, photometric="MONOCHROME1", bits_stored=12, window=(512, 1024))
    values = gray(path)
    assert values[0, 0] == 255 and values[16, 0] == 0 and abs(int(values[8, 0]) - 127) <= 1


@pytest.mark.parametrize("function", ["LINEAR", "LINEAR_EXACT", "SIGMOID"])
@pytest.mark.parametrize("window", [(40, 400), (-600, 1500), (100.5, 2.5), (0, 3000)])
@pytest.mark.parametrize("dtype", [np.uint16, np.int16])
def test_windows_agree_with_pydicom(tmp_path, function, window, dtype):
    pixels = RAMP.astype(dtype) - (dtype(2048) if dtype is np.int16 else dtype(0))
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024 if dtype is np.uint16 else 0}
    path = write_dicom(tmp_path / "a", pixels, bits_stored=12, window=window, VOILUTFunction=function, **rescale)
    assert np.abs(gray(path).astype(int) - oracle(path)).max() <= 1


def test_window_edges_are_exact(tmp_path):
    """PS3.3 C.11.2.1.2: with centre 2048 and width 4096 the ends of the ramp are exactly black and white."""
    values = gray(write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(2048, 4096)))
    assert (values[0, 0], values[-1, -1]) == (0, 255)
    assert (values.reshape(-1) == np.rint(np.arange(4096) * 255 / 4095)).all()


@pytest.mark.parametrize("width", [1, 0.5, 0, -5])
def test_a_window_without_width_is_no_window(tmp_path, width):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(100, width))
    assert 0 < gray(path)[32, 0] < 255
    source = open_source(path)
    source.view(Box(0, 0, 1, 1))
    assert source.details()["window"]["origin"] == "percentile" and "no window" in source.warnings[0]


@pytest.mark.parametrize(
    ("modality", "origin", "told"),
    [("CT", "default", "the window in the file cannot be used"), ("MR", "percentile", "no window that can be used")],
)
def test_a_window_that_is_no_number_is_passed_over_and_told(tmp_path, modality, origin, told):
    path = write_dicom(tmp_path / "a", RAMP, **CT_ELEMENTS | {"Modality": modality}, window=(511, 1024))
    path.write_bytes(path.read_bytes().replace(b"511.0 ", b"51l,0 "))
    source = open_source(path)
    source.view(Box(0, 0, 64, 64))
    assert source.details()["window"]["origin"] == origin and told in source.warnings[0]


@pytest.mark.parametrize(
    ("elements", "level"),
    [
        ({"RescaleSlope": 2}, 128),
        ({"RescaleIntercept": -4095}, 0),
        ({"RescaleSlope": 1, "RescaleIntercept": 4095}, 255),
    ],
)
def test_a_slope_or_an_intercept_may_stand_alone(tmp_path, elements, level):
    """The value 1024 in a window from 0 to 4095; a rescale that was left out would show it at 64."""
    path = write_dicom(tmp_path / "a", np.array([[1024]], np.uint16), window=(2048, 4096), **elements)
    assert abs(int(gray(path)[0, 0]) - level) <= 1


@pytest.mark.parametrize("wrong", ["nan", "inf"])
def test_a_rescale_that_is_no_number_is_refused(tmp_path, wrong):
    """Every value would be none, and shown black."""
    path = write_dicom(tmp_path / "a.dcm", RAMP, **CT_ELEMENTS | {"RescaleSlope": "1.2345"})
    path.write_bytes(path.read_bytes().replace(b"1.2345", wrong.encode().ljust(6)))
    expect_error(dragonfly("view", path, "-o", tmp_path / "a.png"), 4, "a.dcm", "header")


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("shape", ["inverse", " INVERSE", "Inverse "])
def test_a_code_counts_in_whatever_case_it_is_written(tmp_path, shape):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(2048, 4096), PresentationLUTShape="IDENTITYxx")
    path.write_bytes(path.read_bytes().replace(b"IDENTITYxx", shape.encode().ljust(10)))
    assert gray(path)[0, 0] == 255


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("shape", ["IDENTITY", "INVERSE"])
def test_a_film_that_says_two_things_of_what_is_white_is_told(tmp_path, photometric, shape):
    """Viewers do not agree on it: DCMTK goes by the shape, others by the photometric interpretation."""
    about = {"photometric": photometric, "PresentationLUTShape": shape, "window": (2048, 4096)}
    source = open_source(write_dicom(tmp_path / "a", RAMP, bits_stored=12, **about))
    assert gray(tmp_path / "a")[0, 0] == (0 if (photometric, shape) == ("MONOCHROME2", "IDENTITY") else 255)
    is_told = [("lowest values are white" in sentence) for sentence in source.warnings]
    assert is_told == [True] * ((photometric == "MONOCHROME1") == (shape == "IDENTITY"))


WRITTEN = ["monochrome1", "MONOCHROME 1", " MONOCHROME1", "Monochrome1"]


@pytest.mark.parametrize("written", WRITTEN)
@pytest.mark.parametrize("syntax", [ExplicitVRLittleEndian, RLELossless])
def test_a_film_is_not_inverted_by_how_its_direction_is_written(tmp_path, written, syntax):
    path = write_dicom(tmp_path / "a.dcm", RAMP, photometric="MONOCHROME1 ", bits_stored=12, window=(2048, 4096))
    if syntax == RLELossless:
        dataset = pydicom.dcmread(path)
        dataset.compress(RLELossless)
        dataset.save_as(path)
    path.write_bytes(path.read_bytes().replace(b"MONOCHROME1 ", written.encode().ljust(12)))
    assert gray(path)[0, 0] == 255 and gray(path)[-1, -1] == 0
    assert dragonfly("info", path, "--json").json["photometric_interpretation"] == "MONOCHROME1"


@pytest.mark.parametrize("written", ["SMITH JOHN", "\x1b[31mMONO", "HSV", "RGB"])
def test_a_direction_that_nobody_knows_is_refused(tmp_path, written):
    """It is not for us to guess what is black, and what stands there may be a name."""
    path = write_dicom(tmp_path / "a.dcm", RAMP, photometric="MONOCHROME1 ")
    path.write_bytes(path.read_bytes().replace(b"MONOCHROME1 ", written.encode().ljust(12)))
    outcome = dragonfly("info", path)
    expect_error(outcome, 4, "a.dcm", "its photometric interpretation")
    assert "SMITH" not in outcome.stderr and "\x1b" not in outcome.stderr


def test_a_film_that_does_not_say_what_is_black_is_shown_and_told(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(2048, 4096), PhotometricInterpretation=None)
    assert gray(path)[0, 0] == 0 and "black or white" in open_source(path).warnings[0]


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


@pytest.mark.parametrize("kind", ["overlay", "mask"])
def test_what_a_viewer_would_add_or_take_away_is_told(tmp_path, kind):
    path = write_dicom(tmp_path / "a", RAMP, window=(2048, 4096))
    assert open_source(path).warnings == []
    dataset = pydicom.dcmread(path)
    if kind == "mask":
        dataset.RecommendedViewingMode = "SUB"
    else:
        dataset.add_new(0x60020010, "US", 64)
        dataset.add_new(0x60023000, "OW", bytes(512))
    dataset.save_as(path)
    (told,) = open_source(path).warnings
    assert ("has overlays" if kind == "overlay" else "mask frame") in told


@pytest.mark.parametrize(("declared", "taken"), [(None, 1), (2, 2), (3, 3)])
def test_frames_that_the_header_passes_over_are_told(tmp_path, declared, taken):
    path = write_dicom(tmp_path / "a", np.stack([RAMP] * 3), window=(2048, 4096), NumberOfFrames=declared)
    source = open_source(path)
    assert source.frames == taken and gray(path)[-1, -1] > 0
    assert [("room for 3 frames" in sentence) for sentence in source.warnings] == [True] * (taken < 3)


@pytest.mark.parametrize("wrong", [{"WindowCenter": 1e9}, {"RescaleSlope": 0}, {"RescaleSlope": 1e-6}])
def test_a_window_that_shows_nothing_is_told(tmp_path, wrong):
    rescale = {"RescaleSlope": 1, "RescaleIntercept": 0}
    path = write_dicom(tmp_path / "a", RAMP, window=(2048, 4096), **(rescale | wrong))
    outcome = dragonfly("view", path, "--what", "display", "-o", tmp_path / "a.png")
    assert outcome.code == 0 and "all pixels of a frame lie outside the window" in outcome.stderr
    even = write_dicom(tmp_path / "b", np.full((9, 9), 7, np.uint16), window=(2048, 4096))
    assert "outside" not in dragonfly("view", even, "-o", tmp_path / "c.png").stderr


def test_the_first_of_several_windows_is_used(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, WindowCenter=[40, 600], WindowWidth=[400, 2000])
    assert open_source(path).details()["window"]["width"] == 400


def test_ct_without_window_gets_soft_tissue(tmp_path):
    hounsfield = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, **hounsfield)
    source = open_source(path)
    values = np.asarray(source.view(Box(0, 0, 64, 64)))[..., 0].reshape(-1)
    assert source.details()["window"]["origin"] == "default" and not source.warnings
    assert values[1024 - 160] == 0 and values[1024 + 240] == 255 and abs(int(values[1024 + 40]) - 128) <= 1


@pytest.mark.parametrize("bits", [1, 7, 8])
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("rescale", [{}, {"RescaleSlope": 0.5, "RescaleIntercept": -100}])
def test_8_bits_without_a_window_are_shown_as_they_are(tmp_path, bits, photometric, rescale):
    """A screenshot or an ultrasound frame has no window and needs none; stretched, its greys would be others."""
    top = 2**bits - 1
    stored = np.linspace(0, top * 0.8, 64).round().astype(np.uint8).reshape(8, 8)
    path = write_dicom(tmp_path / "a", stored, photometric=photometric, bits_stored=bits, **rescale)
    level = stored * (255 / top)
    expected = np.rint(255 - level if photometric == "MONOCHROME1" else level)
    assert np.array_equal(gray(path), expected)
    source = open_source(path)
    source.view(Box(0, 0, 8, 8))
    assert source.details()["window"]["origin"] == "stored" and source.warnings == []


@pytest.mark.parametrize("kind", ["signed", "PT", "NM", "16 bits"])
def test_values_of_no_certain_range_are_stretched_and_told(tmp_path, kind):
    dtype = {"signed": np.int8, "16 bits": np.uint16}.get(kind, np.uint8)
    stored = np.arange(100, dtype=dtype).reshape(10, 10)
    path = write_dicom(tmp_path / "a", stored, Modality=kind if len(kind) == 2 else "OT")
    assert gray(path).min() == 0 and gray(path).max() == 255
    source = open_source(path)
    source.view(Box(0, 0, 10, 10))
    assert "no window" in source.warnings[0]


def test_8_bits_that_show_next_to_nothing_are_told(tmp_path):
    """Labels, or counts, that nothing says to be such."""
    path = write_dicom(tmp_path / "a", np.arange(12, dtype=np.uint8).reshape(3, 4))
    outcome = dragonfly("view", path, "--what", "display", "-o", tmp_path / "a.png")
    assert outcome.code == 0 and "differ by less than 16 of 255; try --window" in outcome.stderr
    empty = write_dicom(tmp_path / "b", np.zeros((3, 4), np.uint8))
    assert "differ" not in dragonfly("view", empty, "-o", tmp_path / "b.png").stderr


def test_padding_does_not_enter_the_percentiles(tmp_path):
    pixels = np.full((100, 100), -2000, np.int16)
    pixels[40:60] = np.arange(2000).reshape(20, 100) % 100
    path = write_dicom(tmp_path / "a", pixels, PixelPaddingValue=-2000)
    assert gray(path)[40:60].min() == 0 and gray(path)[40:60].max() == 255
    assert 100 < gray(path)[50, 50] < 156


def test_a_modality_table_comes_before_the_window(tmp_path):
    pixels = np.array([[0, 1, 2, 3]], np.uint8)
    path = write_dicom(tmp_path / "a", pixels, window=(50.5, 101), ModalityLUTSequence=table([100, 50, 25, 0]))
    assert gray(path)[0].tolist() == [255, 128, 64, 0]


@pytest.mark.parametrize("kind", [XRayAngiographicImageStorage, XRayRadiofluoroscopicImageStorage])
def test_the_modality_table_of_angiography_is_not_for_display(tmp_path, kind):
    """It leads back to X-ray intensity: with it the vessels would be shown inverted, or not at all."""
    pixels = np.array([[0, 85, 170, 255]], np.uint8)
    sequence = table([255, 100, 20, 0])
    path = write_dicom(tmp_path / "a", pixels, window=(128, 256), SOPClassUID=kind, ModalityLUTSequence=sequence)
    assert gray(path)[0].tolist() == [0, 85, 170, 255]


def test_a_voi_table_stands_above_a_window(tmp_path):
    pixels = np.array([[9, 10, 11, 12, 13]], np.uint8)
    path = write_dicom(tmp_path / "a", pixels, window=(1, 2), VOILUTSequence=table([0, 100, 255], first=10, bits=8))
    assert gray(path)[0].tolist() == [0, 0, 100, 255, 255]
    assert open_source(path).details()["window"] == {"origin": "voi lut", "entries": 3}


def test_a_voi_table_of_rescaled_values_may_start_below_zero(tmp_path):
    pixels = np.array([[0, 1, 2]], np.uint16)
    sequence = table([0, 1000, 4095], first=65536 - 100, bits=12)
    path = write_dicom(tmp_path / "a", pixels, RescaleSlope=1, RescaleIntercept=-100, VOILUTSequence=sequence)
    assert gray(path)[0].tolist() == [0, 62, 255]


def test_tables_of_8_bits_may_lie_two_in_a_word_and_may_not_be_cut_short(tmp_path):
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    words = np.arange(255, -1, -1).astype(np.uint8).view("<u2")
    sequence = table(words, bits=8)
    sequence[0].LUTDescriptor = [256, 0, 8]
    path = write_dicom(tmp_path / "a", pixels, VOILUTSequence=sequence)
    assert gray(path).ravel().tolist() == list(range(255, -1, -1))
    sequence[0].LUTDescriptor = [300, 0, 8]
    with pytest.raises(InputError, match="damaged"):
        open_source(write_dicom(tmp_path / "b", pixels, VOILUTSequence=sequence))


def test_an_empty_voi_sequence_is_no_table(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, window=(2048, 4096), bits_stored=12, VOILUTSequence=Sequence())
    assert gray(path)[-1, -1] == 255 and open_source(path).details()["window"]["width"] == 4096


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


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
def test_rgb_keeps_its_colours(tmp_path, dtype):
    pixels = np.zeros((2, 2, 3), dtype)
    pixels[0, 0] = (np.iinfo(dtype).max, 0, 0)
    values = shown(write_dicom(tmp_path / "a", pixels, photometric="RGB"))
    assert values[0, 0].tolist() == [255, 0, 0] and values[1, 1].tolist() == [0, 0, 0]


def test_ybr_becomes_rgb(tmp_path):
    red = Image.new("RGB", (2, 2), "red").convert("YCbCr")
    values = shown(write_dicom(tmp_path / "a", np.asarray(red), photometric="YBR_FULL"))
    assert np.abs(values[0, 0].astype(int) - (255, 0, 0)).max() <= 2


@pytest.mark.parametrize(("bits", "full"), [(16, 65535), (8, 255), (8, 65280)])
def test_palettes_of_8_and_16_bits(tmp_path, bits, full):
    """A descriptor that says 8 above entries of 16 is an old mistake of ultrasound machines."""
    elements = {}
    for color, entries in zip(("Red", "Green", "Blue"), ([0, full], [0, 0], [full, 0]), strict=True):
        kind = np.uint16 if full > 255 else np.uint8
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [2, 0, bits]
        elements[f"{color}PaletteColorLookupTableData"] = np.array(entries, kind).tobytes()
    path = write_dicom(tmp_path / "a", np.array([[0, 1]], np.uint8), photometric="PALETTE COLOR", **elements)
    assert shown(path)[0].tolist() == [[0, 0, 255], [255, 0, 0]]


def colour_jpeg(tmp_path, photometric, **options):
    stripes = Image.new("RGB", (32, 32), (230, 60, 120))
    stripes.paste((250, 250, 250), (0, 0, 16, 32))
    stream = BytesIO()
    stripes.save(stream, format="JPEG", quality=95, **options)
    path = write_dicom(tmp_path / "a", np.zeros((32, 32, 3), np.uint8), photometric="RGB")
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = photometric
    dataset.PixelData = encapsulate([stream.getvalue()])
    dataset["PixelData"].is_undefined_length = True
    return save_dicom(path, dataset, JPEGBaseline8Bit), np.asarray(stripes)


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL_422"])
@pytest.mark.parametrize("keep_rgb", [False, True])
def test_colour_jpeg_is_natural_whatever_the_header_says(tmp_path, photometric, keep_rgb):
    path, expected = colour_jpeg(tmp_path, photometric, keep_rgb=keep_rgb, subsampling=0)
    assert np.abs(shown(path).astype(int) - expected).mean() < 4


@pytest.mark.parametrize("keep_rgb", [False, True])
def test_colour_jpeg_without_marks_is_natural_too(tmp_path, keep_rgb):
    path, expected = colour_jpeg(tmp_path, "RGB", keep_rgb=keep_rgb, subsampling=0)
    dataset = pydicom.dcmread(path)
    data = dataset.PixelData
    data = data.replace(b"JFIF\0", b"XXXX\0").replace(b"Adobe", b"XXXXX")
    for name, number in zip(b"RGB", (1, 2, 3), strict=True):  # component numbers of SOF0 and SOS
        data = data.replace(bytes([name, 0x11, 0]), bytes([number, 0x11, 0]))
        data = data.replace(bytes([name, 0x00]), bytes([number, 0x00]), 1) if keep_rgb else data
    dataset.PixelData = data
    save_dicom(path, dataset, JPEGBaseline8Bit)
    assert np.abs(shown(path).astype(int) - expected).mean() < 4


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
    good = write_dicom(tmp_path / "a", RAMP, BurnedInAnnotation="YES", PixelSpacing=[0.511, 0.511])
    damaged = tmp_path / "b"
    damaged.write_bytes(good.read_bytes().replace(b"0.511\\", b"Abe! \\"))
    with warnings.catch_warnings(record=True) as heard, caplog.at_level(logging.DEBUG):
        warnings.simplefilter("always")
        source = open_source(good)
        source.view(Box(0, 0, 64, 64))
        with pytest.raises(InputError) as caught:
            open_source(damaged)
    told = repr(source.details()) + repr(source.warnings) + caplog.text + "".join(capfd.readouterr())
    told += caught.value.message + caught.value.hint
    assert not heard and "burned into" in source.warnings[0]
    assert not [word for word in ("Nobody", "4711", "SECRET", "Abe!") if word in told]


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the real images are not here")
def test_a_real_chest_film_is_dark_where_there_is_air():
    values = gray(SHARED_DATA / "dicom" / "fo-dicom_CR-MONO1-10-chest")
    lung, spine = values[150:250, 90:150].mean(), values[150:250, 210:230].mean()
    assert lung + 40 < spine


def test_padding_never_dazzles(tmp_path):
    """Without a window of the file, padding is out of the percentiles and black, up to Pixel Padding Range Limit."""
    pixels = (RAMP % 100 + 500).astype(np.uint16)
    pixels[:10], pixels[10:20] = 65535, 65530
    path = write_dicom(tmp_path / "a", pixels, PixelPaddingValue=65535, PixelPaddingRangeLimit=65530)
    values = gray(path)
    assert (values[:20] == 0).all() and values[20:].max() == 255 and values[20:].min() == 0
    path = write_dicom(tmp_path / "b", pixels, photometric="MONOCHROME1", PixelPaddingValue=65530)
    assert (gray(path)[10:20] == 0).all() and (gray(path)[:10] == 0).all()  # the second because it is the brightest


def test_padding_of_signed_pixels_may_be_written_unsigned(tmp_path):
    pixels = (RAMP.astype(np.int16) % 100) - 50
    pixels[:32] = -2000
    path = write_dicom(tmp_path / "a", pixels)
    dataset = pydicom.dcmread(path)
    dataset.add_new("PixelPaddingValue", "US", 65536 - 2000)
    save_dicom(path, dataset)
    assert gray(path)[32:].max() == 255 and 100 < np.median(gray(path)[32:]) < 156


@pytest.mark.parametrize(
    ("photometric", "shape", "first"),
    [
        ("MONOCHROME2", "INVERSE", 255),
        ("MONOCHROME2", "IDENTITY", 0),
        ("MONOCHROME1", "INVERSE", 255),
        ("MONOCHROME1", None, 255),
    ],
)
def test_presentation_shape_and_monochrome1_invert_once(tmp_path, photometric, shape, first):
    elements = {"PresentationLUTShape": shape} if shape else {}
    path = write_dicom(tmp_path / "a", RAMP, photometric=photometric, bits_stored=12, window=(2048, 4096), **elements)
    assert gray(path)[0, 0] == first and gray(path)[-1, -1] == 255 - first


def test_windows_of_the_file_are_chosen_by_number(tmp_path):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, WindowCenter=[50.5, 3000], WindowWidth=[101, 200])
    assert gray(path)[2, 0] == 255
    source = open_source(path, OpenOptions(window="2"))
    assert np.asarray(source.view(Box(0, 0, 64, 64)))[2, 0, 0] == 0
    assert [window["center"] for window in source.details()["windows"]] == [50.5, 3000]
    with pytest.raises(UsageError, match="has 2 windows"):
        open_source(path, OpenOptions(window="3"))


def test_a_chosen_window_stands_above_a_table_of_the_file(tmp_path):
    pixels = np.array([[0, 50, 100]], np.uint8)
    path = write_dicom(tmp_path / "a", pixels, VOILUTSequence=table([255, 255, 255]))
    assert gray(path)[0].tolist() == [255, 255, 255]
    source = open_source(path, OpenOptions(window="101,50.5"))
    assert np.asarray(source.view(Box(0, 0, 3, 1)))[0, :, 0].tolist() == [0, 128, 255]
    assert source.details()["window"]["origin"] == "option"


CT_ELEMENTS = {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024}


def test_presets_are_for_hounsfield_units_alone(tmp_path):
    path = write_dicom(tmp_path / "ct", RAMP, bits_stored=12, window=(0, 10), **CT_ELEMENTS)
    lung = open_source(path, OpenOptions(window="lung"))
    values = np.asarray(lung.view(Box(0, 0, 64, 64)))[..., 0].ravel()
    assert abs(int(values[1024 - 600]) - 128) <= 1 and values[1024 - 600 + 750] == 255
    for other in (
        write_dicom(tmp_path / "mr", RAMP, Modality="MR"),
        write_dicom(tmp_path / "ct2", RAMP, Modality="CT"),
    ):
        with pytest.raises(UsageError, match="not Hounsfield units"):
            open_source(other, OpenOptions(window="lung"))
    color = write_dicom(tmp_path / "c", np.zeros((4, 4, 3), np.uint8), photometric="RGB")
    with pytest.raises(UsageError, match="colour"):
        open_source(color, OpenOptions(window="101,50"))
    with pytest.raises(UsageError, match="for DICOM"):
        open_source(write_png(tmp_path / "a.png"), OpenOptions(window="lung"))


def test_three_windows_make_red_green_and_blue(tmp_path):
    """Air is in red alone, soft tissue in red and green, bone in all three."""
    hounsfield = np.array([[-1400, -500, 40, 1400]], np.int16)
    path = write_dicom(tmp_path / "ct", hounsfield, **CT_ELEMENTS | {"RescaleIntercept": 0})
    source = open_source(path, OpenOptions(window="rgb3"))
    black, air, tissue, bone = np.asarray(source.view(Box(0, 0, 4, 1)))[0].tolist()
    assert black == [0, 0, 0] and bone[1:] == [255, 242]
    assert air[0] > 100 and air[1:] == [0, 0]
    assert tissue[0] > 230 and 120 < tissue[1] < 136 and tissue[2] < 80


def test_float_pixels_are_shown(tmp_path):
    values = np.linspace(-1, 1, 64, dtype=np.float32).reshape(8, 8)
    path = write_dicom(tmp_path / "a", values.astype(np.float32), window=(0, 1), VOILUTFunction="LINEAR_EXACT")
    dataset = pydicom.dcmread(path)
    dataset.FloatPixelData = values.tobytes()
    for keyword in ("PixelData", "BitsStored", "HighBit", "PixelRepresentation"):
        delattr(dataset, keyword)
    save_dicom(path, dataset)
    expected = np.clip((values + 0.5) * 255, 0, 255)
    assert np.abs(gray(path) - expected).max() <= 1


def test_a_segmented_palette_is_expanded(tmp_path):
    """PS3.3 C.7.9.2: a discrete segment, then a line from there to the end."""
    segments = np.array([0, 1, 0, 1, 255, 65535], np.uint16).tobytes()
    elements = {}
    for color in ("Red", "Green", "Blue"):
        elements[f"{color}PaletteColorLookupTableDescriptor"] = [256, 0, 16]
        elements[f"Segmented{color}PaletteColorLookupTableData"] = segments
    path = write_dicom(
        tmp_path / "a", np.arange(256, dtype=np.uint8).reshape(16, 16), photometric="PALETTE COLOR", **elements
    )
    assert np.abs(gray(path).ravel().astype(int) - np.arange(256)).max() <= 1


def test_an_icc_profile_is_applied_and_a_broken_one_told(tmp_path):
    pixels = np.full((4, 4, 3), (200, 60, 60), np.uint8)
    srgb = ImageCmsProfile(createProfile("sRGB")).tobytes()
    for name, profile in (("srgb", srgb), ("red is blue", swapping_profile())):
        path = write_dicom(tmp_path / name, pixels, photometric="RGB", ICCProfile=profile)
        values = shown(path)[0, 0].astype(int)
        assert (np.abs(values - (200, 60, 60)).max() <= 1) == (name == "srgb")
    path = write_dicom(tmp_path / "broken", pixels, photometric="RGB", ICCProfile=b"nonsense" * 40)
    source = open_source(path)
    assert np.asarray(source.view(Box(0, 0, 4, 4)))[0, 0].tolist() == [200, 60, 60]
    assert "ICC profile" in source.warnings[0]


def test_a_broken_profile_of_every_slice_is_told_once(tmp_path):
    for number in range(3):
        about = {"photometric": "RGB", "ICCProfile": b"nonsense" * 40, "SeriesInstanceUID": "1.2"}
        pixels = np.full((4, 4, 3), 9 * number, np.uint8)
        write_dicom(tmp_path / f"{number}.dcm", pixels, InstanceNumber=number, **about)
    source = open_source(tmp_path)
    for frame in range(3):
        source.view(Box(0, 0, 4, 4), frame)
    assert [("ICC profile" in sentence) for sentence in source.warnings].count(True) == 1


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
def test_planes_may_come_one_after_the_other(tmp_path, planar, photometric):
    pixels = np.random.default_rng(0).integers(0, 256, (6, 8, 3), np.uint8)
    stored = np.moveaxis(pixels, -1, 0) if planar else pixels
    path = write_dicom(tmp_path / "a", pixels, photometric=photometric, PlanarConfiguration=planar)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = stored.tobytes()
    save_dicom(path, dataset)
    natural = pixels if photometric == "RGB" else np.asarray(Image.fromarray(pixels, "YCbCr").convert("RGB"))
    assert np.abs(shown(path).astype(int) - natural).max() <= 2


def test_halved_colour_is_spread_over_both_pixels(tmp_path):
    """YBR_FULL_422, uncompressed: two luma samples share one pair of chroma samples."""
    red = Image.new("RGB", (1, 1), "red").convert("YCbCr").getpixel((0, 0))
    path = write_dicom(tmp_path / "a", np.zeros((2, 4, 3), np.uint8), photometric="YBR_FULL")
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    dataset.PixelData = bytes([red[0], red[0], red[1], red[2]]) * 4
    save_dicom(path, dataset)
    assert np.abs(shown(path).astype(int) - (255, 0, 0)).max() <= 2


def test_limited_range_colour_fills_the_range(tmp_path):
    pixels = np.array([[[16, 128, 128], [235, 128, 128]]], np.uint8)
    path = write_dicom(tmp_path / "a", np.zeros((1, 2, 3), np.uint8), photometric="RGB")
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = "YBR_PARTIAL_420"
    dataset.PixelData = pixels.tobytes()
    save_dicom(path, dataset)
    assert shown(path)[0].tolist() == [[0, 0, 0], [255, 255, 255]]


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
