"""DICOM colours as a viewer would show them: RGB, YCbCr, palettes, profiles and colour JPEG."""

from io import BytesIO

import numpy as np
import pydicom
import pytest
from dicom_display import CT_ELEMENTS, gray, shown
from make_files import save_dicom, swapping_profile, write_dicom
from PIL import Image
from PIL.ImageCms import ImageCmsProfile, createProfile
from pydicom.encaps import encapsulate
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGLSLossless,
    RLELossless,
)

from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.dicom.jpeg import looks_like_ycbcr


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


def as_stream(path, syntax, name):
    """The same picture in another transfer syntax."""
    dataset = pydicom.dcmread(path)
    if syntax in PLAIN:
        return save_dicom(path.with_name(name), pydicom.Dataset(dataset), syntax)
    dataset.compress(syntax, generate_instance_uid=False)
    dataset.save_as(path.with_name(name))
    return path.with_name(name)


PLAIN = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, DeflatedExplicitVRLittleEndian)


@pytest.mark.parametrize("syntax", [*PLAIN, RLELossless, JPEG2000Lossless, JPEGLSLossless])
@pytest.mark.parametrize("kind", ["RGB", "YBR_FULL", "16 bits", "palette", "palette of 12 bits"])
def test_colours_have_no_sign_whatever_the_header_says(tmp_path, kind, syntax):
    """Taken for negative, all that is bright would be black."""
    levels = np.repeat(np.arange(256, dtype=np.uint16), 16).reshape(64, 64)
    about = {"photometric": kind if kind == "YBR_FULL" else "RGB"}
    pixels = np.stack([levels, 255 - levels, levels // 2 + 64], -1)
    if kind.startswith("palette"):
        about, pixels = {"photometric": "PALETTE COLOR", "bits_stored": 12 if "12" in kind else None}, levels
        for colour, entries in zip(("Red", "Green", "Blue"), (range(256), range(255, -1, -1), [7] * 256), strict=True):
            about[f"{colour}PaletteColorLookupTableDescriptor"] = [256, 0, 8]
            about[f"{colour}PaletteColorLookupTableData"] = bytes(entries)
    scale = {"16 bits": (np.uint16, 257), "palette of 12 bits": (np.uint16, 1)}.get(kind, (np.uint8, 1))
    written = (pixels * scale[1]).astype(scale[0])
    expected = shown(write_dicom(tmp_path / "a", written, **about))
    path = as_stream(write_dicom(tmp_path / "b", written, **about), syntax, "c")
    dataset = pydicom.dcmread(path)
    dataset.PixelRepresentation = 1
    dataset.save_as(path)
    assert np.ptp(expected[..., 0].astype(int)) > 128 and np.array_equal(shown(path), expected)


def test_indices_of_a_palette_that_begins_below_zero_are_negative(tmp_path):
    about = {}
    for colour in ("Red", "Green", "Blue"):
        about[f"{colour}PaletteColorLookupTableDescriptor"] = [256, -128, 8]
        about[f"{colour}PaletteColorLookupTableData"] = bytes(range(256))
    pixels = np.arange(-128, 128, dtype=np.int16).reshape(16, 16)
    path = write_dicom(tmp_path / "a", pixels, photometric="PALETTE COLOR", **about)
    assert np.array_equal(gray(path).ravel(), np.arange(256))


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


def test_colour_jpeg_of_limited_range_by_its_header_is_made_rgb_once(tmp_path):
    path, expected = colour_jpeg(tmp_path, "YBR_PARTIAL_422")
    assert np.abs(shown(path).astype(int) - expected).mean() < 6


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


@pytest.mark.parametrize(
    "mean", [(205, 125, 115), (205, 150, 130), (190, 100, 50), (205, 120, 170), (60, 70, 90), (128, 128, 128)]
)  # mucosa, skin, fundus, stained tissue, ultrasound, grey
def test_colours_near_grey_are_not_taken_for_chroma_nor_chroma_for_them(mean):
    rng = np.random.default_rng(0)
    light = rng.normal(0, 25, (48, 48, 1)) * (0.6, 1, 0.9) + rng.normal(0, 6, (48, 48, 3))
    field = np.clip(mean + light, 0, 255).astype(np.uint8)
    assert not looks_like_ycbcr(field)
    assert looks_like_ycbcr(np.asarray(Image.fromarray(field).convert("YCbCr")))
    assert looks_like_ycbcr(np.full((8, 8, 3), (0, 128, 128), np.uint8))  # nothing but black


@pytest.mark.parametrize("glow", [(0, 200, 0), (200, 0, 200), (30, 60, 220), (220, 0, 0)])
def test_glow_on_black_in_ycbcr_is_known(glow):
    y, x = np.mgrid[:64, :64]
    light = np.exp(-(((x % 21 - 10) ** 2 + (y % 21 - 10) ** 2) / 12))[..., None]
    field = (light * glow + np.random.default_rng(0).normal(3, 1, (64, 64, 3))).clip(0, 255).astype(np.uint8)
    assert looks_like_ycbcr(np.asarray(Image.fromarray(field).convert("YCbCr")))
    assert not looks_like_ycbcr(field)


def test_three_windows_make_red_green_and_blue(tmp_path):
    """Air is in red alone, soft tissue in red and green, bone in all three."""
    hounsfield = np.array([[-1400, -500, 40, 1400]], np.int16)
    path = write_dicom(tmp_path / "ct", hounsfield, **CT_ELEMENTS | {"RescaleIntercept": 0})
    source = open_source(path, OpenOptions(window="rgb3"))
    black, air, tissue, bone = np.asarray(source.view(Box(0, 0, 4, 1)))[0].tolist()
    assert black == [0, 0, 0] and bone[1:] == [255, 242]
    assert air[0] > 100 and air[1:] == [0, 0]
    assert tissue[0] > 230 and 120 < tissue[1] < 136 and tissue[2] < 80


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


@pytest.mark.parametrize("space", ["RGB", "YCbCr"])
def test_colours_called_halved_that_are_stored_in_full(tmp_path, space):
    """As tools leave them that decompress a JPEG and keep what it was called."""
    grey = np.random.default_rng(0).integers(0, 200, (30, 40, 1))
    picture = np.concatenate([grey + 40, grey + 10, grey], axis=-1).astype(np.uint8)
    stored = np.asarray(Image.fromarray(picture).convert(space))
    path = write_dicom(tmp_path / "a", np.stack([stored, stored[::-1]]), photometric="RGB")
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = "YBR_FULL_422"
    save_dicom(path, dataset)
    source = open_source(path)
    assert any("stored in full" in warning for warning in source.warnings)
    for frame, expected in enumerate((picture, picture[::-1])):
        seen = np.asarray(source.view(Box(0, 0, 40, 30), frame)).astype(int)
        assert np.abs(seen - expected).max() <= 3
