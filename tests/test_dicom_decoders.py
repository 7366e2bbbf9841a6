"""Transfer syntax by transfer syntax: what the base install decodes, and how it says that it cannot."""

import struct
import sys
import tomllib
from io import BytesIO
from pathlib import Path

import imagecodecs
import numpy as np
import pydicom
import pytest
from dicom_display import shown
from make_files import save_dicom, write_dicom
from PIL import Image
from pydicom.encaps import encapsulate, encapsulate_extended, generate_frames
from pydicom.pixels import compress, get_decoder
from pydicom.pixels.encoders import RLELosslessEncoder
from pydicom.uid import (
    HTJ2K,
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    HTJ2KLossless,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGBaseline8Bit,
    JPEGExtended12Bit,
    JPEGLossless,
    JPEGLosslessSV1,
    JPEGLSLossless,
    JPEGLSNearLossless,
    RLELossless,
)
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.dicom.codecs import DEEPEST_BITS, INSTALL_HINTS, can_decode

PYPROJECT = Path(__file__).parents[1] / "pyproject.toml"
Y, X = np.mgrid[0:48, 0:64]
SMOOTH_8 = ((X * 3 + Y) % 256).astype(np.uint8)
SMOOTH_12 = (X * 40 + Y * 20).astype(np.uint16)
COLOR = np.stack([SMOOTH_8, 255 - SMOOTH_8, SMOOTH_8 // 2], -1)


def encoded(path, pixels, stream, syntax, **elements):
    """``pixels`` as a file whose pixel data is ``stream``."""
    photometric = "RGB" if pixels.ndim == 3 else "MONOCHROME2"
    write_dicom(path, pixels, photometric=photometric, **elements)
    dataset = pydicom.dcmread(path)
    dataset.PixelData = encapsulate([stream])
    dataset["PixelData"].is_undefined_length = True
    return save_dicom(path, dataset, syntax)


def jpeg_8(pixels):
    buffer = BytesIO()
    Image.fromarray(pixels).save(buffer, "JPEG", quality=95, subsampling=0)
    return buffer.getvalue()


def rle(pixels):
    facts = {"rows": pixels.shape[0], "columns": pixels.shape[1], "samples_per_pixel": pixels.shape[2]}
    facts |= {"bits_allocated": 8, "bits_stored": 8, "pixel_representation": 0, "number_of_frames": 1}
    return RLELosslessEncoder.encode(pixels, photometric_interpretation="RGB", planar_configuration=0, **facts)


def lossless(predictor):
    return lambda pixels: imagecodecs.jpeg8_encode(
        pixels, lossless=True, predictor=predictor, bitspersample=12 if pixels.dtype == np.uint16 else 8
    )


STREAMS = {  # what makes a stream of a syntax, of which pixels, and by how many grey levels of 255 it may differ
    "baseline grey": (JPEGBaseline8Bit, jpeg_8, SMOOTH_8, 3),
    "baseline colour": (JPEGBaseline8Bit, jpeg_8, COLOR, 3),
    "extended, 8 bit": (JPEGExtended12Bit, jpeg_8, SMOOTH_8, 3),
    "extended, 8 bit colour": (JPEGExtended12Bit, jpeg_8, COLOR, 3),
    "extended, 12 bit": (
        JPEGExtended12Bit,
        lambda pixels: imagecodecs.jpeg8_encode(pixels, level=95, bitspersample=12),
        SMOOTH_12,
        1,
    ),
    "lossless grey": (JPEGLosslessSV1, lossless(1), SMOOTH_12, 0),
    "lossless, predictor 6": (JPEGLossless, lossless(6), SMOOTH_12, 0),
    "lossless, 8 bit": (JPEGLossless, lossless(7), SMOOTH_8, 0),
    "lossless colour": (JPEGLosslessSV1, lossless(1), COLOR, 0),
    "JPEG-LS": (JPEGLSLossless, imagecodecs.jpegls_encode, SMOOTH_12, 0),
    "JPEG-LS near lossless": (JPEGLSNearLossless, lambda p: imagecodecs.jpegls_encode(p, level=2), SMOOTH_8, 2),
    "JPEG 2000 colour": (
        JPEG2000Lossless,
        lambda p: imagecodecs.jpeg2k_encode(p, codecformat="j2k", level=0),
        COLOR,
        0,
    ),
    "JPEG-LS colour": (JPEGLSLossless, imagecodecs.jpegls_encode, COLOR, 0),
    "RLE colour": (RLELossless, lambda p: rle(p), COLOR, 0),
    "JPEG 2000": (JPEG2000Lossless, lambda p: imagecodecs.jpeg2k_encode(p, codecformat="j2k", level=0), SMOOTH_12, 0),
}
COMPRESSED_BY_PYDICOM = [RLELossless, JPEG2000Lossless, JPEGLSLossless]
PLAIN = [ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian]


@pytest.mark.parametrize("name", STREAMS)
def test_streams_of_every_kind_decode(tmp_path, name):
    syntax, encode, pixels, tolerance = STREAMS[name]
    bits, top = (12, 4095) if pixels.dtype == np.uint16 else (8, 255)
    window = None if pixels.ndim == 3 else ((top + 1) / 2, top + 1)
    path = encoded(tmp_path / "a", pixels, encode(pixels), syntax, bits_stored=bits, window=window)
    expected = np.rint(pixels * (255 / top))
    expected = expected if pixels.ndim == 3 else np.stack([expected] * 3, -1)
    assert np.abs(shown(path) - expected).max() <= tolerance * 4
    assert np.abs(shown(path) - expected).mean() <= tolerance


@pytest.mark.parametrize("syntax", COMPRESSED_BY_PYDICOM)
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.int16])
def test_compressing_changes_nothing(tmp_path, syntax, dtype):
    pixels = SMOOTH_8.astype(dtype) if dtype == np.uint8 else SMOOTH_12.astype(dtype)
    pixels = pixels - 700 if dtype == np.int16 else pixels
    path = write_dicom(tmp_path / "a", pixels.astype(dtype), window=(100, 1000))
    expected = shown(path)
    dataset = pydicom.dcmread(path)
    compress(dataset, syntax, generate_instance_uid=False)
    dataset.save_as(tmp_path / "b")
    assert np.array_equal(shown(tmp_path / "b"), expected)


@pytest.mark.parametrize("syntax", PLAIN)
def test_uncompressed_files(tmp_path, syntax):
    expected = shown(write_dicom(tmp_path / "a", SMOOTH_12, bits_stored=12, window=(2048, 4096)))
    dataset = pydicom.dcmread(tmp_path / "a")
    if syntax == ExplicitVRBigEndian:
        dataset.PixelData = SMOOTH_12.astype(">u2").tobytes()
    dataset.file_meta.TransferSyntaxUID = syntax
    dataset = pydicom.Dataset(dataset)
    assert np.array_equal(shown(save_dicom(tmp_path / "b", dataset, syntax)), expected)


def test_the_base_install_has_a_decoder_for_every_syntax():
    for syntax in INSTALL_HINTS:
        assert can_decode(pydicom.uid.UID(syntax), DEEPEST_BITS.get(syntax, 8)), syntax
    assert get_decoder(HTJ2K).is_available and get_decoder(HTJ2KLossless).is_available
    needed = tomllib.loads(PYPROJECT.read_text(encoding="utf-8"))["project"]["dependencies"]
    assert not [text for text in needed if text.startswith("pylibjpeg-libjpeg")]  # GPL


def test_a_missing_decoder_names_syntax_and_package(tmp_path, monkeypatch):
    stream = lossless(1)(SMOOTH_12)
    path = encoded(tmp_path / "a.dcm", SMOOTH_12, stream, JPEGLosslessSV1, bits_stored=12)
    monkeypatch.setitem(sys.modules, "imagecodecs", None)
    decoder = get_decoder(JPEGLosslessSV1)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(InputError, match="no decoder for JPEG Lossless") as caught:
        shown(path)
    assert "pip install imagecodecs" in caught.value.hint


@pytest.mark.parametrize("name", STREAMS)
def test_half_a_stream_is_refused(tmp_path, name):
    """libjpeg would fill the missing part with grey, which looks like a lesion or like air."""
    syntax, encode, pixels, _ = STREAMS[name]
    noisy = pixels ^ np.random.default_rng(0).integers(0, 64, pixels.shape, dtype=pixels.dtype)
    stream = encode(noisy)
    path = encoded(tmp_path / "a.dcm", pixels, stream[: len(stream) // 2], syntax)
    expect_error(dragonfly("view", path, "-o", tmp_path / "a.png"), 4, "a.dcm", "damaged or incomplete")
    assert not (tmp_path / "a.png").exists()


@pytest.mark.parametrize("name", [name for name in STREAMS if name.startswith(("baseline", "extended"))])
def test_a_jpeg_that_has_lost_a_block_of_the_disk_is_refused(tmp_path, name):
    """libjpeg would show it grey from there on."""
    syntax, encode, pixels, _ = STREAMS[name]
    stream = encode(pixels ^ np.random.default_rng(0).integers(0, 64, pixels.shape, dtype=pixels.dtype))
    middle = len(stream) // 2
    path = encoded(tmp_path / "a.dcm", pixels, stream[:middle] + bytes(64) + stream[middle + 64 :], syntax)
    expect_error(dragonfly("view", path, "-o", tmp_path / "a.png"), 4, "a.dcm", "damaged or incomplete")


def test_a_compressed_file_that_ends_within_its_pixels_is_cut_short(tmp_path):
    """Not something else than DICOM, as pydicom gives nothing of it."""
    path = encoded(tmp_path / "a.dcm", SMOOTH_12, imagecodecs.jpegls_encode(SMOOTH_12), JPEGLSLossless)
    path.write_bytes(path.read_bytes()[:-300])
    expect_error(dragonfly("info", path), 4, "a.dcm", "it is cut short")


@pytest.mark.parametrize("cut", [2, 300])
def test_a_jpeg_ls_stream_without_its_end_is_refused_before_it_is_decoded(tmp_path, monkeypatch, cut):
    """Its decoder goes on for seconds behind the end of some streams, before it gives up."""
    decoded = []
    monkeypatch.setattr("jpeg_ls.decode_pixel_data", lambda stream: decoded.append(stream))
    path = encoded(tmp_path / "a.dcm", SMOOTH_12, imagecodecs.jpegls_encode(SMOOTH_12)[:-cut], JPEGLSLossless)
    expect_error(dragonfly("view", path, "-o", tmp_path / "a.png"), 4, "a.dcm", "damaged or incomplete")
    assert not decoded


def two_planes(first, second):
    """An RLE stream of 16 bits."""
    return np.array([2, 64, 64 + len(first)] + [0] * 13, "<u4").tobytes() + first + second


@pytest.mark.parametrize("surplus", [bytes([257 - 128, 0]), bytes([0, 7])])
def test_rle_that_is_longer_than_the_header_says_is_refused(tmp_path, surplus):
    """Left away, as decoders do, the rest may be sheared; pylibjpeg-rle panics, which is no Exception in Python."""
    plane = bytes([257 - 128, 0]) * (SMOOTH_12.size // 128)  # 128 times a zero, as often as fits
    path = encoded(tmp_path / "a.dcm", SMOOTH_12, two_planes(plane + surplus, plane), RLELossless)
    expect_error(dragonfly("view", path, "-o", tmp_path / "a.png"), 4, "a.dcm", "damaged or incomplete")


def test_rle_whose_bytes_are_lost_or_whose_size_is_wrong_is_refused(tmp_path):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH_12 ^ (SMOOTH_12 >> 3), window=(2048, 4096))
    dataset = pydicom.dcmread(path)
    dataset.compress(RLELossless, generate_instance_uid=False)
    (stream,) = generate_frames(dataset.PixelData, number_of_frames=1)
    for lost, smaller in ((1, {}), (5, {}), (0, {"Rows": 47}), (0, {"Columns": 63}), (0, {"Columns": 32})):
        for at in (len(stream) // 3, len(stream) // 2):
            dataset.PixelData = encapsulate([stream[:at] + stream[at + lost :]])
            dataset.Rows, dataset.Columns = smaller.get("Rows", 48), smaller.get("Columns", 64)
            dataset.save_as(path)
            with pytest.raises(InputError, match="damaged or incomplete"):
                shown(path)


@pytest.mark.parametrize("padding", [b"\0", bytes(2), bytes(10)])
def test_rle_whose_planes_are_padded_with_zeros_is_shown(tmp_path, padding):
    """One is what the standard has; some ultrasound machines write more."""
    plane = bytes([257 - 128, 9]) * (SMOOTH_12.size // 128)
    stream = two_planes(plane + padding, plane + padding)
    path = encoded(tmp_path / "a.dcm", SMOOTH_12, stream, RLELossless, window=(9 * 257, 1))
    assert (shown(path) == 255).all()


def test_a_stream_of_another_size_is_refused(tmp_path):
    """Whatever the header says, memory is taken for what it says, not for what the stream claims."""
    path = encoded(tmp_path / "a.dcm", SMOOTH_8, jpeg_8(np.zeros((600, 600), np.uint8)), JPEGBaseline8Bit)
    expect_error(dragonfly("view", path, "-o", tmp_path / "a.png"), 4, "a.dcm", "damaged")


ABSURD = {
    "gigantic": {"Rows": 60000, "Columns": 60000, "NumberOfFrames": 1000},
    "no rows": {"Rows": 0},
    "no frames": {"NumberOfFrames": 0},
    "fewer than no frames": {"NumberOfFrames": -3},
    "many frames": {"NumberOfFrames": 2_000_000_000},
    "cut short": {"Rows": 49},
    "five samples": {"SamplesPerPixel": 5},
}


@pytest.mark.parametrize("name", ABSURD)
def test_absurd_shapes_are_refused_before_memory_is_taken(tmp_path, name):
    path = write_dicom(tmp_path / "a.dcm", SMOOTH_8, **ABSURD[name])
    expect_error(dragonfly("info", path), 4, "a.dcm")


@pytest.mark.parametrize("name", ["extended, 12 bit", "lossless grey", "JPEG-LS", "JPEG 2000"])
def test_a_stream_with_more_bits_than_there_is_room_for_is_refused(tmp_path, name):
    """Its values would lose their upper bits, and what is bright wrap round to dark."""
    syntax, encode, pixels, _ = STREAMS[name]
    path = encoded(tmp_path / "a", pixels.astype(np.uint8), encode(pixels), syntax)
    expect_error(dragonfly("view", path, "--what", "display", "-o", tmp_path / "a.png"), 4, "damaged or incomplete")


@pytest.mark.parametrize(
    ("syntax", "encode"),
    [
        (JPEGLSLossless, imagecodecs.jpegls_encode),
        (JPEG2000Lossless, lambda pixels: imagecodecs.jpeg2k_encode(pixels, codecformat="j2k", level=0)),
        (JPEGLosslessSV1, lambda pixels: imagecodecs.jpeg8_encode(pixels, lossless=True, bitspersample=16)),
    ],
)
@pytest.mark.parametrize("signed", [False, True])
@pytest.mark.parametrize("above", [0, 0xF000])
def test_bits_above_those_stored_say_nothing(tmp_path, syntax, encode, signed, above):
    """Old overlays lie there, or nothing; a negative value then has no sign of its own."""
    values = SMOOTH_12.astype(np.int16) - 2048 * signed
    words = (values.astype(np.uint16) & 0x0FFF) | (above * (X % 2)).astype(np.uint16)
    about = {"bits_stored": 12, "window": (0 if signed else 2048, 4096), "PixelRepresentation": int(signed)}
    expected = shown(write_dicom(tmp_path / "a", values, **about))
    assert np.array_equal(shown(encoded(tmp_path / "b", words, encode(words), syntax, **about)), expected)


@pytest.mark.parametrize("syntax", [JPEGLosslessSV1, JPEGLSLossless, JPEG2000Lossless])
@pytest.mark.parametrize(("declared", "window"), [(10, (2048, 4096)), (8, None)])
def test_values_that_do_not_fit_the_bits_declared_are_taken_whole_and_told(tmp_path, syntax, declared, window):
    """Cut to these bits, what is bright would wrap round to dark."""
    path = write_dicom(tmp_path / "a", SMOOTH_12, bits_stored=12, window=window)
    expected = shown(path)
    if syntax == JPEGLosslessSV1:
        encoded(path, SMOOTH_12, lossless(1)(SMOOTH_12), syntax, window=window)
    dataset = pydicom.dcmread(path)
    if syntax != JPEGLosslessSV1:
        dataset.compress(syntax, generate_instance_uid=False)
    dataset.BitsStored, dataset.HighBit = declared, declared - 1
    dataset.save_as(path)
    source = open_source(path)
    assert np.array_equal(np.asarray(source.view(Box(0, 0, 64, 48))), expected)
    assert "more bits than its header declares" in " ".join(source.warnings)


@pytest.mark.parametrize("pixels", [SMOOTH_8, COLOR])
def test_8_bits_that_are_called_7_are_taken_whole(tmp_path, pixels):
    path = encoded(tmp_path / "a", pixels, imagecodecs.jpegls_encode(pixels), JPEGLSLossless, bits_stored=7)
    assert np.array_equal(shown(path), pixels if pixels.ndim == 3 else np.stack([pixels] * 3, -1))


@pytest.mark.parametrize("signed", [False, True])
def test_a_stream_with_more_bits_than_its_values_need_changes_nothing(tmp_path, signed):
    """Some encoders know 8, 12 and 16 bits only; negative values may have no sign above their own bits."""
    values = (SMOOTH_12 // 4).astype(np.int16) - 512 * signed
    about = {"bits_stored": 10, "window": (0 if signed else 512, 1024), "PixelRepresentation": int(signed)}
    expected = shown(write_dicom(tmp_path / "a", values, **about))
    for mask in (0x03FF, 0x0FFF):
        words = values.astype(np.uint16) & mask
        source = open_source(encoded(tmp_path / "b", words, lossless(1)(words), JPEGLosslessSV1, **about))
        assert np.array_equal(np.asarray(source.view(Box(0, 0, 64, 48))), expected) and source.warnings == []


def test_what_a_lossy_codec_makes_brighter_than_white_stays_white(tmp_path):
    """10 bits are stored, and around a sharp edge the codec's 12 bits swing beyond them."""
    pixels = np.where((X // 5 + Y // 5) % 2, 1023, 0).astype(np.uint16)
    stream = imagecodecs.jpeg8_encode(pixels, level=60, bitspersample=12)
    assert imagecodecs.jpeg8_decode(stream).max() > 1023
    path = encoded(tmp_path / "a", pixels, stream, JPEGExtended12Bit, bits_stored=10, window=(512, 1024))
    assert shown(path)[pixels == 1023].min() > 128


@pytest.mark.parametrize("photometric", ["RGB", "YBR_RCT", "YBR_FULL", "YBR_FULL_422"])
@pytest.mark.parametrize("transformed", [False, True])
def test_colour_jpeg_2000_is_natural_whatever_the_header_says(tmp_path, photometric, transformed):
    """A stream with a colour transform of its own holds RGB, though files rewritten from JPEG still say YBR_FULL."""
    skin = np.where((X < 32)[..., None], (230, 170, 140), (250, 250, 250)).astype(np.uint8)
    is_ybr = photometric.startswith("YBR_FULL") and not transformed
    stored = np.asarray(Image.fromarray(skin).convert("YCbCr")) if is_ybr else skin
    stream = imagecodecs.jpeg2k_encode(stored, codecformat="j2k", level=0, mct=transformed)
    path = encoded(tmp_path / "a", stored, stream, JPEG2000Lossless)
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = photometric
    dataset.save_as(path)
    assert np.abs(shown(path).astype(int) - skin).max() <= 2


JFIF = b"\xff\xe0\0\x10JFIF\0\1\1\0\0\1\0\1\0\0"


def unnamed(stream, start):
    """A stream of red, green and blue without the marks and names that say so; ``start`` is that of its own part."""
    bare = b"\xff\xd8" + stream[stream.index(start) :]
    return bare.replace(b"R\x11\0G\x11\0B\x11", b"\1\x11\0\2\x11\0\3\x11").replace(b"\3R\0G\0B", b"\3\1\0\2\0\3")


@pytest.mark.parametrize("space", ["RGB", "YCbCr"])
@pytest.mark.parametrize("kind", ["stained tissue", "red on black"])
def test_colours_that_nothing_names_are_known_by_their_look(tmp_path, kind, space):
    """Stained tissue is pink, with green and blue as near to grey as chroma is; text may be of one colour alone."""
    shade = np.asarray(Image.fromarray(np.random.default_rng(0).integers(0, 255, (12, 16), np.uint8)).resize((64, 48)))
    pink = np.array([205, 120, 170]) - shade[..., None] // 4 * np.array([0.9, 1, 0.6])
    seen = pink if kind == "stained tissue" else (shade > 200)[..., None] * np.array([255, 0, 0])
    image = Image.fromarray(seen.round().astype(np.uint8))
    stored = np.asarray(image if space == "RGB" else image.convert("YCbCr"))
    stream = imagecodecs.jpeg8_encode(stored, level=98, colorspace="RGB", outcolorspace="RGB", subsampling="444")
    path = encoded(tmp_path / "a", stored, unnamed(stream, b"\xff\xdb"), JPEGBaseline8Bit)
    assert np.abs(shown(path).astype(int) - np.asarray(image)).mean() <= 3


@pytest.mark.parametrize("photometric", ["RGB", "YBR_FULL"])
@pytest.mark.parametrize("syntax", [JPEGLossless, JPEGLosslessSV1])
@pytest.mark.parametrize("mark", [b"", JFIF])
def test_of_colours_in_lossless_jpeg_the_header_decides(tmp_path, photometric, syntax, mark):
    """The mark of JFIF, which says YCbCr, is left above RGB by encoders; believed, skin would be green."""
    skin = np.where((X < 32)[..., None], (230, 170, 140), (250, 250, 250)).astype(np.uint8)
    stored = skin if photometric == "RGB" else np.asarray(Image.fromarray(skin).convert("YCbCr"))
    stream = unnamed(lossless(1)(stored), b"\xff\xc3")
    path = encoded(tmp_path / "a", stored, stream[:2] + mark + stream[2:], syntax)
    dataset = pydicom.dcmread(path)
    dataset.PhotometricInterpretation = photometric
    dataset.save_as(path)
    assert np.abs(shown(path).astype(int) - skin).max() <= (0 if photometric == "RGB" else 2)


@pytest.mark.parametrize("planar", [0, 1])
@pytest.mark.parametrize("name", [name for name, (_, _, pixels, _) in STREAMS.items() if pixels.ndim == 3])
def test_a_planar_configuration_says_nothing_of_a_codec(tmp_path, name, planar):
    """PS3.5 8.2: a stream has its own order, whatever old exports have left in the header."""
    syntax, encode, pixels, tolerance = STREAMS[name]
    path = encoded(tmp_path / "a", pixels, encode(pixels), syntax, PlanarConfiguration=planar)
    assert np.abs(shown(path).astype(int) - pixels).max() <= 4 * tolerance


def three_frames(path: Path, syntax: str) -> pydicom.Dataset:
    """One dark, one grey and one bright, compressed."""
    frames = [np.full((48, 64), level, np.uint8) for level in (10, 120, 240)]
    dataset = pydicom.dcmread(write_dicom(path, np.stack(frames), window=(128, 256)))
    dataset.compress(syntax, generate_instance_uid=False)
    return dataset


def levels_shown(path: Path) -> list[int]:
    """Of three frames, which are not looked at in their order."""
    source = open_source(path)
    shown = {frame: source.view(Box(0, 0, 1, 1), frame).getpixel((0, 0))[0] for frame in (2, 0, 1)}
    return [shown[frame] for frame in range(3)]


@pytest.mark.parametrize("table", ["none", "right", "zeros", "one entry", "descending"])
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_a_table_of_frames_that_cannot_be_right_exchanges_none(tmp_path, table, syntax):
    """Believed, it would show the first frame in place of the last."""
    dataset = three_frames(tmp_path / "a", syntax)
    pixels = encapsulate(list(generate_frames(dataset.PixelData, number_of_frames=3)), has_bot=table != "none")
    right = struct.unpack("<3I", pixels[8:20])
    wrong = {"zeros": (0, 0, 0), "one entry": (0,), "descending": right[::-1]}.get(table, right)
    items = pixels[20:] if table != "none" else pixels[8:]
    head = b"\xfe\xff\0\xe0" + struct.pack("<I", 4 * len(wrong)) + struct.pack(f"<{len(wrong)}I", *wrong)
    dataset.PixelData = pixels if table == "none" else head + items
    dataset.save_as(tmp_path / "a")
    assert levels_shown(tmp_path / "a") == [10, 120, 240]


EXTENDED_TABLES = {  # what is made of a right table
    "right": lambda starts, lengths: (starts, lengths),
    "zeros": lambda starts, lengths: ([0, 0, 0], lengths),
    "exchanged": lambda starts, lengths: ([0, *starts[:0:-1]], [lengths[0], *lengths[:0:-1]]),
    "doubled": lambda starts, lengths: ([0, 0, starts[2]], [lengths[0], lengths[0], lengths[2]]),
    "short": lambda starts, lengths: (starts[:2], lengths[:2]),
    "shifted": lambda starts, lengths: ([0, starts[1] + 2, starts[2] + 2], lengths),
    "far": lambda starts, lengths: ([0, 2**63, 2**64 - 1], lengths),
    "huge": lambda starts, lengths: (starts, [2**63] * 3),
}


@pytest.mark.parametrize("table", EXTENDED_TABLES)
@pytest.mark.parametrize("syntax", [RLELossless, JPEG2000Lossless])
def test_an_extended_table_that_cannot_be_right_exchanges_none(tmp_path, table, syntax):
    dataset = three_frames(tmp_path / "a", syntax)
    dataset.PixelData, *tables = encapsulate_extended(list(generate_frames(dataset.PixelData, number_of_frames=3)))
    starts, lengths = EXTENDED_TABLES[table](*(list(struct.unpack("<3Q", each)) for each in tables))
    dataset.ExtendedOffsetTable = struct.pack(f"<{len(starts)}Q", *starts)
    dataset.ExtendedOffsetTableLengths = struct.pack(f"<{len(lengths)}Q", *lengths)
    dataset.save_as(tmp_path / "a")
    assert levels_shown(tmp_path / "a") == [10, 120, 240]


@pytest.mark.parametrize("syntax", [RLELossless, JPEGLSLossless])
@pytest.mark.parametrize("table", ["basic", "extended"])
def test_frames_of_a_table_that_the_header_passes_over_are_told(tmp_path, syntax, table):
    path = write_dicom(tmp_path / "a", np.stack([SMOOTH_8] * 3), window=(128, 256))
    dataset = pydicom.dcmread(path)
    dataset.compress(syntax, generate_instance_uid=False, encapsulate_ext=table == "extended")
    for declared in (3, 2, 1):
        dataset.NumberOfFrames = declared
        dataset.save_as(path)
        told = f"its pixel data has room for 3 frames: {declared}, as it declares, are taken"
        assert open_source(path).warnings == [told] * (declared < 3)


@pytest.mark.parametrize("syntax", [JPEGBaseline8Bit, RLELossless, ExplicitVRLittleEndian])
@pytest.mark.parametrize("frames", [10**4, 10**9])
def test_more_frames_than_a_file_has_room_for_are_refused_before_they_are_listed(tmp_path, frames, syntax):
    if syntax == ExplicitVRLittleEndian:
        path = write_dicom(tmp_path / "a.dcm", SMOOTH_8, NumberOfFrames=frames)
    else:
        path = encoded(tmp_path / "a.dcm", SMOOTH_8, jpeg_8(SMOOTH_8), syntax, NumberOfFrames=frames)
    expect_error(dragonfly("info", path), 4, "a.dcm", "cut short")
    expect_error(dragonfly("info", tmp_path), 4, "none of the DICOM files", "can be read")


@pytest.mark.parametrize("bits", [1, 4, 12, 15])
@pytest.mark.parametrize("signed", [False, True])
def test_samples_packed_without_regard_to_bytes(tmp_path, bits, signed):
    """PS3.5 8.1.1: bits allocated need not be a multiple of 8, and then frames need not begin at a byte."""
    rng = np.random.default_rng(bits)
    low, high = (-(2 ** (bits - 1)), 2 ** (bits - 1)) if signed else (0, 2**bits)
    values = rng.integers(low, high, (2, 5, 7))
    flat = (values.reshape(-1, 1) >> np.arange(bits)) & 1
    packed = np.packbits(flat.astype(np.uint8).ravel(), bitorder="little").tobytes()
    path = write_dicom(tmp_path / "a", values.astype(np.uint16), window=((low + high) / 2, max(2, high - low)))
    dataset = pydicom.dcmread(path)
    dataset.BitsAllocated = dataset.BitsStored = bits
    dataset.HighBit, dataset.PixelRepresentation = bits - 1, int(signed)
    dataset.PixelData = packed + b"\0" * (len(packed) % 2)
    save_dicom(path, dataset)
    source = open_source(path)
    center, width = (low + high) / 2, max(2, high - low)
    expected = np.rint(np.clip((values - (center - 0.5)) / (width - 1) + 0.5, 0, 1) * 255)
    for frame in (0, 1):
        assert np.abs(np.asarray(source.view(Box(0, 0, 7, 5), frame))[..., 0] - expected[frame]).max() <= 1


def test_values_in_the_upper_bits_of_a_word(tmp_path):
    """High Bit above Bits Stored - 1, as older files have it; the low bits may hold an overlay."""
    noise = np.random.default_rng(0).integers(0, 16, SMOOTH_12.shape, dtype=np.uint16)
    expected = shown(write_dicom(tmp_path / "a", SMOOTH_12, bits_stored=12, window=(2048, 4096)))
    path = write_dicom(tmp_path / "b", SMOOTH_12 * 16 + noise, bits_stored=12, window=(2048, 4096), HighBit=15)
    assert np.array_equal(shown(path), expected)
    path = write_dicom(tmp_path / "c", SMOOTH_12 + 4096 * (noise % 8), bits_stored=12, window=(2048, 4096))
    assert np.array_equal(shown(path), expected)


def test_a_high_bit_that_is_a_mistake_is_not_believed(tmp_path):
    """The values stand in the low bits all the same: nothing is above them."""
    expected = shown(write_dicom(tmp_path / "a", SMOOTH_12, bits_stored=12, window=(2048, 4096)))
    path = write_dicom(tmp_path / "b", SMOOTH_12, bits_stored=12, window=(2048, 4096), HighBit=15)
    assert np.array_equal(shown(path), expected)


def test_dark_frames_in_the_upper_bits_are_as_dark_as_they_are(tmp_path):
    """They have nothing above their lower bits either."""
    values = np.stack([SMOOTH_12 // 256, SMOOTH_12])
    path = write_dicom(tmp_path / "a", values * 16, bits_stored=12, window=(2048, 4096), HighBit=15)
    source = open_source(path)
    height, width = SMOOTH_12.shape
    dark, bright = (np.asarray(source.view(Box(0, 0, width, height), frame)) for frame in (0, 1))
    assert dark.max() <= 1 < bright.max()


def test_a_decoder_that_fails_says_nothing(tmp_path, caplog, capfd):
    """Neither by logging, which quotes what it was given, nor from C to the process's stderr."""
    path = encoded(tmp_path / "a.dcm", SMOOTH_8, b"\xff\x4f\xff\x51" + bytes(60), JPEG2000Lossless)
    with pytest.raises(InputError):
        shown(path)
    assert caplog.text + "".join(capfd.readouterr()) == ""
