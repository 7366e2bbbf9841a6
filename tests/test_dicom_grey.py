"""DICOM greys as a viewer would show them: direction, rescale, windows, tables and padding."""

import numpy as np
import pydicom
import pytest
from dicom_display import CT_ELEMENTS, RAMP, gray, table
from make_files import SHARED_DATA, save_dicom, write_dicom, write_png
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.sequence import Sequence
from pydicom.uid import (
    ExplicitVRLittleEndian,
    RLELossless,
    XRayAngiographicImageStorage,
    XRayRadiofluoroscopicImageStorage,
)
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError, UsageError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source


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


@pytest.mark.parametrize("center", [0.5, 1])
def test_a_window_of_width_1_is_a_threshold(tmp_path, center):
    """PS3.3 C.11.2.1.2: black up to half below its centre, white above; masks have it."""
    path = write_dicom(tmp_path / "a", np.array([[0, 1, 1, 0]], np.uint8), window=(center, 1))
    assert gray(path)[0].tolist() == [0, 255, 255, 0] and open_source(path).warnings == []


@pytest.mark.parametrize("width", [0.5, 0, -5])
def test_a_window_without_width_is_no_window(tmp_path, width):
    path = write_dicom(tmp_path / "a", RAMP, bits_stored=12, window=(100, width))
    assert 0 < gray(path)[32, 0] < 255
    source = open_source(path)
    source.view(Box(0, 0, 1, 1))
    assert source.details()["window"]["origin"] == "percentile" and "no window" in source.warnings[0]


@pytest.mark.parametrize(
    ("modality", "dtype", "origin", "told"),
    [
        ("CT", np.uint16, "default", "the window in the file cannot be used: 400 wide around 40"),
        ("CR", np.uint8, "stored", "the window in the file cannot be used: the values are shown as they are stored"),
        ("MR", np.uint16, "percentile", "no window that can be used"),
    ],
)
def test_a_window_that_is_no_number_is_passed_over_and_told(tmp_path, modality, dtype, origin, told):
    path = write_dicom(tmp_path / "a", RAMP.astype(dtype), **CT_ELEMENTS | {"Modality": modality}, window=(511, 1024))
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
@pytest.mark.parametrize(
    "rescale",
    [
        {},
        {"RescaleSlope": 0.5, "RescaleIntercept": -100},
        {"Modality": "CT", "RescaleSlope": 1, "RescaleIntercept": -1024},  # left over in a screenshot of a CT
    ],
)
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
    assert outcome.code == 0 and "differ by no more than 16 of 255; try --window" in outcome.stderr
    empty = write_dicom(tmp_path / "b", np.zeros((3, 4), np.uint8))
    assert "differ" not in dragonfly("view", empty, "-o", tmp_path / "b.png").stderr


def test_a_voi_table_that_shows_next_to_nothing_is_told(tmp_path):
    """Of 12 bits, where its descriptor speaks of 16."""
    pixels = np.arange(4096, dtype=np.uint16).reshape(64, 64)
    path = write_dicom(tmp_path / "a", pixels, bits_stored=12, VOILUTSequence=table(range(4096), bits=16))
    assert gray(path).max() == 16
    outcome = dragonfly("view", path, "--what", "display", "-o", tmp_path / "a.png")
    assert outcome.code == 0 and "differ by no more than 16 of 255; try --window" in outcome.stderr


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


def test_padding_is_black_in_a_window_of_the_user(tmp_path):
    """However bright it would be in it; in a window of the file it looks as the file says."""
    pixels = np.array([[0, 50, 100, 4000]], np.uint16)
    path = write_dicom(tmp_path / "a", pixels, PixelPaddingValue=4000, window=(50.5, 101))
    source = open_source(path, OpenOptions(window="101,50.5"))
    assert np.asarray(source.view(Box(0, 0, 4, 1)))[0, :, 0].tolist() == [0, 128, 255, 0]
    assert gray(path)[0].tolist() == [0, 128, 255, 255]


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


@pytest.mark.parametrize(
    ("window", "slope"), [("0.003,0.0015", 1e-6), ("1,0.5", 1 / 3000), ("1.5,0.75", 1 / 2000), ("15,7.5", 1 / 200)]
)
def test_a_narrow_window_ends_where_it_says(tmp_path, window, slope):
    """Diffusion in mm2/s, probabilities, ratios and uptake: a half unit to either side would be most of the range."""
    pixels = np.array([[0, 1500, 3000, 4000]], np.uint16)
    source = open_source(write_dicom(tmp_path / "a", pixels, RescaleSlope=slope), OpenOptions(window=window))
    assert np.asarray(source.view(Box(0, 0, 4, 1)))[0, :, 0].tolist() == [0, 128, 255, 255]


@pytest.mark.parametrize("window", ["nan,3", "4,nan", "1e400,3", "4,inf"])
def test_a_window_is_made_of_numbers(window):
    with pytest.raises(UsageError, match="must both be numbers"):
        OpenOptions(window=window)


@pytest.mark.parametrize("window", ["0,3", "-5,3"])
def test_a_window_has_a_width(window):
    with pytest.raises(UsageError, match="the width must be above 0"):
        OpenOptions(window=window)


def test_a_chosen_window_stands_above_a_table_of_the_file(tmp_path):
    pixels = np.array([[0, 50, 100]], np.uint8)
    path = write_dicom(tmp_path / "a", pixels, VOILUTSequence=table([255, 255, 255]))
    assert gray(path)[0].tolist() == [255, 255, 255]
    source = open_source(path, OpenOptions(window="101,50.5"))
    assert np.asarray(source.view(Box(0, 0, 3, 1)))[0, :, 0].tolist() == [0, 128, 255]
    assert source.details()["window"]["origin"] == "option"


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
