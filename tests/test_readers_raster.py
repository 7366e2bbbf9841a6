"""Ordinary pictures: what a viewer would show, and clean refusals."""

import gzip
import struct
import warnings
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from make_files import grey_profile, ink_profile, swapping_profile, tissue_like
from PIL import Image, ImageCms
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.image_files import list_images


def whole(path, frame=0):
    source = open_source(path)
    return source, source.view(Box(0, 0, *source.size_wh), frame)


def pixels(path):
    return np.asarray(whole(path)[1])


def save(path, values, **options):
    Image.fromarray(values).save(path, **options)
    return path


def turned(upright, orientation):
    """An image as a camera stores it that was held so."""
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpose methods
    return upright.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else upright


def test_a_plain_picture_says_what_it_is(tmp_path):
    source, image = whole(save(tmp_path / "a.png", np.full((30, 40, 3), (10, 20, 30), np.uint8)))
    assert (source.kind, source.format, source.size_wh, source.frames) == ("raster", "PNG", (40, 30), 1)
    assert (source.mpp, source.mpp_source, source.warnings) == (None, "none", [])
    assert image.mode == "RGB" and image.getpixel((5, 5)) == (10, 20, 30)


def test_the_whole_box_is_the_same_image_and_a_part_is_its_crop(tmp_path):
    path = save(tmp_path / "a.png", np.arange(48, dtype=np.uint8).reshape(4, 4, 3))
    source, image = whole(path)
    assert source.view(Box(0, 0, 4, 4)) is image
    part = source.view(Box(1, 2, 2, 1))
    assert part.size == (2, 1) and part.getpixel((0, 0)) == image.getpixel((1, 2))


def test_dots_per_inch_are_no_scale_and_the_option_is(tmp_path):
    path = save(tmp_path / "a.png", np.zeros((4, 4), np.uint8), dpi=(72, 72))
    assert open_source(path).mpp is None
    source = open_source(path, OpenOptions(slide_mpp=0.25))
    assert (source.mpp, source.mpp_source) == ((0.25, 0.25), "option")


@pytest.mark.parametrize("orientation", range(1, 9))
def test_exif_orientation_is_applied(tmp_path, orientation):
    """The mark that the file holds somewhere must be seen at the top left."""
    upright = np.zeros((20, 40, 3), np.uint8)
    upright[:10, :10] = (255, 0, 0)
    stored = turned(Image.fromarray(upright), orientation)
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored.save(tmp_path / "turned.png", exif=exif)
    source, image = whole(tmp_path / "turned.png")
    assert source.size_wh == (40, 20) == image.size
    assert image.getpixel((4, 4)) == (255, 0, 0) and image.getpixel((35, 15)) == (0, 0, 0)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("mode", ["L", "I;16", "RGB", "RGBA", "CMYK", "F"])
def test_the_orientation_of_a_plain_tiff_is_applied(tmp_path, mode, orientation):
    """Pillow took the lines of some of them for as long as they are when the picture is turned: slanted stripes."""
    upright = np.zeros((20, 44), np.uint8)
    upright[:10, :10], upright[10:, 34:] = 255, 100
    wide = (upright.astype(np.uint16) * 257) if mode == "I;16" else upright.astype(np.float32)
    image = Image.fromarray(wide) if mode in ("I;16", "F") else Image.fromarray(upright).convert("RGB").convert(mode)
    turned(image, orientation).save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
    assert np.array_equal(pixels(tmp_path / "a.tif"), upright[..., None].repeat(3, -1))


def test_transparency_is_laid_on_white(tmp_path):
    values = np.zeros((2, 2, 4), np.uint8)
    values[0, 0] = (255, 0, 0, 255)
    values[0, 1] = (0, 0, 0, 128)
    _, image = whole(save(tmp_path / "a.png", values))
    assert image.getpixel((0, 0)) == (255, 0, 0)
    assert image.getpixel((1, 0)) == (127, 127, 127)
    assert image.getpixel((0, 1)) == (255, 255, 255)


def test_a_picture_that_is_wholly_transparent_is_reported(tmp_path):
    """Some programs leave the alpha channel at 0 above a picture that is there."""
    values = np.full((4, 4, 4), (200, 30, 30, 0), np.uint8)
    source, image = whole(save(tmp_path / "a.png", values))
    assert np.asarray(image).min() == 255 and "transparent" in source.warnings[0]
    values[0, 0, 3] = 255
    assert whole(save(tmp_path / "b.png", values))[0].warnings == []


def test_transparent_palette_colour_is_white(tmp_path):
    image = Image.new("P", (2, 1))
    image.putpalette([255, 0, 0, 0, 0, 255])
    image.putpixel((1, 0), 1)
    image.save(tmp_path / "a.png", transparency=1)
    _, shown = whole(tmp_path / "a.png")
    assert [shown.getpixel((x, 0)) for x in (0, 1)] == [(255, 0, 0), (255, 255, 255)]


def test_16_bit_grey_uses_the_range_of_its_type(tmp_path):
    _, image = whole(save(tmp_path / "a.png", np.array([[0, 257 * 100, 65535]], np.uint16)))
    assert [image.getpixel((x, 0))[0] for x in range(3)] == [0, 100, 255]


def test_dark_16_bit_grey_is_reported(tmp_path):
    source, _ = whole(save(tmp_path / "a.tif", np.array([[0, 1000]], np.uint16)))
    assert "nearly black" in source.warnings[0]


def test_float_pixels_are_stretched_and_reported(tmp_path):
    source, image = whole(save(tmp_path / "a.tif", np.array([[-1.0, 0.0, 1.0, np.nan]], np.float32)))
    assert [image.getpixel((x, 0))[0] for x in range(4)] == [0, 128, 255, 0]
    assert "no fixed range" in source.warnings[0]


@pytest.mark.parametrize("dtype", [np.uint16, np.float32])
def test_white_is_zero_at_every_depth(tmp_path, dtype):
    """Scanned film: without it the picture would be a negative."""
    values = np.array([[0, 32768, 65535]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="miniswhite", byteorder="<")
    assert [pixel[0] for pixel in np.asarray(whole(tmp_path / "a.tif")[1])[0]] == [255, 127, 0]


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32, np.float32])
@pytest.mark.parametrize("byteorder", ["<", ">"])
@pytest.mark.parametrize("compression", [None, "zlib"])
def test_the_sign_and_the_bytes_of_samples_are_those_of_the_file(tmp_path, dtype, byteorder, compression):
    """Else values are taken for others at the other end of the range: Pillow exchanges bytes that are in order."""
    low, high = (-1e6, 1e6) if dtype is np.float32 else (np.iinfo(dtype).min, np.iinfo(dtype).max)
    if (dtype, byteorder) == (np.uint32, ">"):
        pytest.skip("Pillow opens none")
    values = np.array([[low, low // 2 + high // 2, high]], dtype)
    tifffile.imwrite(tmp_path / "a.tif", values, byteorder=byteorder, compression=compression)
    source, image = whole(tmp_path / "a.tif")
    assert [round(pixel[0] / 2) for pixel in np.asarray(image)[0].astype(float)] == [0, 64, 128]
    assert "no fixed range" in source.warnings[0]


@pytest.mark.parametrize("top", [255, 4095, 65535])
def test_a_pgm_uses_the_range_that_it_declares(tmp_path, top):
    values = np.array([[0, top // 3, top // 2]]).astype(np.uint8 if top == 255 else ">u2")
    (tmp_path / "a.pgm").write_bytes(b"P5 3 1 %d\n" % top + values.tobytes())
    assert pixels(tmp_path / "a.pgm")[0, :, 0].tolist() == [0, 85, 127]


def test_packed_12_bits_use_their_range(tmp_path):
    values = np.array([[0, 1365, 2730, 4095]], np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, bitspersample=12, metadata=None)
    source, image = whole(tmp_path / "a.tif")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 85, 170, 255] and source.warnings == []


@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_dark_16_bit_colours_are_reported(tmp_path, suffix):
    values = np.full((4, 4, 3), 4000, np.uint16)
    path = tmp_path / f"a{suffix}"
    path.write_bytes(imagecodecs.png_encode(values) if suffix == ".png" else b"")
    if suffix == ".tif":
        tifffile.imwrite(path, values, photometric="rgb", metadata=None)
    assert "nearly black" in open_source(path).warnings[0]


def as_light(levels, gamma):
    return np.rint(255 * (np.asarray(levels) / 255) ** gamma).astype(int)


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_colours_are_those_of_the_profile(tmp_path, suffix):
    values = np.full((16, 16, 3), (180, 90, 140), np.uint8)
    save(tmp_path / f"a{suffix}", values, icc_profile=swapping_profile(), quality=95)
    source, image = whole(tmp_path / f"a{suffix}")
    assert np.abs(np.asarray(image).astype(int) - (140, 90, 180)).max() <= 3 and source.warnings == []


def test_jpeg_2000_has_the_colours_of_its_profile(tmp_path):
    values = np.full((16, 16, 3), (180, 90, 140), np.uint8)
    save(tmp_path / "a.jp2", values)
    plain = (tmp_path / "a.jp2").read_bytes()
    at = plain.index(b"colr") - 4
    (length,) = struct.unpack_from(">I", plain, at)
    colour = b"\2\0\0" + swapping_profile()  # restricted ICC
    colour = struct.pack(">I4s", 8 + len(colour), b"colr") + colour
    header = plain.index(b"jp2h") - 4
    (outer,) = struct.unpack_from(">I", plain, header)
    outer += len(colour) - length
    changed = plain[:header] + struct.pack(">I", outer) + plain[header + 4 : at] + colour + plain[at + length :]
    (tmp_path / "a.jp2").write_bytes(changed)
    source, image = whole(tmp_path / "a.jp2")
    assert (np.asarray(image) == (140, 90, 180)).all(axis=-1).mean() > 0.9 and source.warnings == []


def test_a_profile_is_known_by_what_it_changes_and_not_by_its_name(tmp_path):
    """ "Linear sRGB" is no sRGB, and shown as it is stored it is nearly black."""
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16).repeat(3).reshape(16, 16, 3)
    plain = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    assert np.array_equal(pixels(save(tmp_path / "a.png", levels, icc_profile=plain)), levels)
    at, length = next(
        struct.unpack_from(">II", plain, place + 4) for place in range(132, 400, 12) if plain[place:][:4] == b"rTRC"
    )
    straight = b"para" + struct.pack(">IHHi", 0, 0, 0, 0x10000)
    linear = plain[:at] + straight.ljust(length, b"\0") + plain[at + length :]
    seen = pixels(save(tmp_path / "b.png", levels, icc_profile=linear)).astype(int)
    assert np.abs(seen - levels).max() > 50 and (np.diff(seen[..., 0].ravel()) >= 0).all()


@pytest.mark.parametrize("gamma", [1.0, 3.0])
@pytest.mark.parametrize("dtype", [np.uint8, np.uint16])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_greys_are_those_of_the_profile(tmp_path, suffix, dtype, gamma):
    levels = np.arange(0, 256, 15, dtype=np.uint8)[None]
    stored = levels if dtype == np.uint8 else levels.astype(np.uint16) * 257
    seen = pixels(save(tmp_path / f"a{suffix}", stored, icc_profile=grey_profile(gamma)))
    light = (levels[0] / 255) ** gamma
    expected = 255 * np.where(light < 0.0031308, 12.92 * light, 1.055 * light ** (1 / 2.4) - 0.055)  # sRGB's curve
    assert np.abs(seen[0, :, 0] - expected).max() <= 2
    assert (seen == seen[..., :1]).all()


@pytest.mark.parametrize("suffix", [".jpg", ".tif"])
def test_inks_are_those_of_the_profile(tmp_path, suffix):
    Image.new("CMYK", (16, 16), (255, 0, 0, 0)).save(tmp_path / f"a{suffix}", icc_profile=ink_profile(), quality=95)
    red, green, blue = whole(tmp_path / f"a{suffix}")[1].getpixel((8, 8))
    assert red > 240 and green < 30 and blue < 30


@pytest.mark.parametrize("profile", [b"nonsense" * 40, b"x", grey_profile(1.0), ink_profile()])
def test_a_profile_that_does_not_fit_is_told(tmp_path, profile):
    values = np.full((4, 4, 3), (200, 60, 60), np.uint8)
    source, image = whole(save(tmp_path / "a.tif", values, icc_profile=profile))
    assert np.array_equal(np.asarray(image), values)
    assert source.warnings == ["the ICC profile in the file cannot be used: its colours are shown as they are stored"]


@pytest.mark.parametrize("gamma", [0.0, 200.0])
def test_a_profile_that_leaves_nothing_to_see_is_told(tmp_path, gamma):
    """Damaged, it may make a picture white or black all over."""
    levels = np.arange(1, 250, 2, dtype=np.uint8)[None]
    source, image = whole(save(tmp_path / "a.png", levels, icc_profile=grey_profile(gamma)))
    assert np.array_equal(np.asarray(image)[..., 0], levels) and "ICC profile" in source.warnings[0]


def png_chunk(kind, content):
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@pytest.mark.parametrize("mode", ["L", "P", "RGB", "RGBA", "I;16"])
@pytest.mark.parametrize(("gamma", "others"), [(1.0, b""), (0.55556, b""), (0.45455, b""), (1.0, b"sRGB")])
def test_the_gamma_of_a_png_is_that_of_the_file(tmp_path, mode, gamma, others):
    levels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    wide = Image.fromarray(levels.astype(np.uint16) * 257)
    image = wide if mode == "I;16" else Image.fromarray(levels).convert("RGB").convert(mode)
    image.save(tmp_path / "a.png")
    before = pixels(tmp_path / "a.png")
    chunks = png_chunk(b"gAMA", struct.pack(">I", round(gamma * 100_000)))
    chunks += png_chunk(b"sRGB", b"\0") if others else b""
    content = (tmp_path / "a.png").read_bytes()
    (tmp_path / "a.png").write_bytes(content[:33] + chunks + content[33:])
    is_corrected = gamma != 0.45455 and not others
    expected = as_light(before, 1 / (2.2 * gamma)) if is_corrected else before
    assert np.abs(pixels(tmp_path / "a.png") - expected).max() <= 1


@pytest.mark.parametrize("bits", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("kind", ["grey", "colour"])
def test_the_transparent_value_of_a_png_is_white(tmp_path, bits, kind):
    """Pillow looks for it among 8-bit values: a white ground would be black, or the picture full of holes."""
    if kind == "colour" and bits < 8:
        pytest.skip("there is none")
    key, other = ((2**bits - 1) // 3 * 2, (2**bits - 1) // 3) if bits > 1 else (0, 1)
    samples = 3 if kind == "colour" else 1
    lines = [[key] * samples * 8] * 4 + [[other] * samples * 8] * 4
    packed = b"".join(
        b"\0" + np.packbits([int(bit) for value in line for bit in f"{value:0{bits}b}"]).tobytes() for line in lines
    )
    head = struct.pack(">IIBBBBB", 8, 8, bits, 2 if kind == "colour" else 0, 0, 0, 0)
    chunks = {b"IHDR": head, b"tRNS": struct.pack(">H", key) * samples, b"IDAT": zlib.compress(packed), b"IEND": b""}
    (tmp_path / "a.png").write_bytes(b"\x89PNG\r\n\x1a\n" + b"".join(png_chunk(*each) for each in chunks.items()))
    seen = pixels(tmp_path / "a.png")
    assert (seen[:4] == 255).all() and (seen[4:] == round(255 * other / (2**bits - 1))).all()


def test_a_pfm_is_stretched_and_reported(tmp_path):
    values = np.array([[-1, 0, 1]], "<f4")
    (tmp_path / "a.pfm").write_bytes(b"Pf\n3 1\n-1.0\n" + values.tobytes())
    source, image = whole(tmp_path / "a.pfm")
    assert np.asarray(image)[0, :, 0].tolist() == [0, 128, 255] and "no fixed range" in source.warnings[0]


def test_a_jpeg_that_cannot_be_read_is_still_one(tmp_path):
    (tmp_path / "a.jpg").write_bytes(imagecodecs.jpeg8_encode(np.zeros((8, 8), np.uint16), bitspersample=12))
    expect_error(dragonfly("info", tmp_path / "a.jpg"), 4, "a.jpg", "damaged, or of a kind that is not supported")


NIFTI = b"\x5c\1\0\0" + bytes(340) + b"n+1\0" + bytes(100)
SLICER, QUPATH, PNG = "3D Slicer", "QuPath or Bio-Formats", "PNG or TIFF"
FOREIGN = {
    "a.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture", PNG),
    "a.jxl": (b"\xff\x0a" + bytes(40), "a JPEG XL picture", PNG),
    "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing", PNG),
    "a.pdf": (b"%PDF-1.7\n", "a PDF", PNG),
    "a.nii": (NIFTI, "a NIfTI volume", SLICER),
    "a.nii.gz": (gzip.compress(NIFTI), "a NIfTI volume", SLICER),
    "a.gz": (gzip.compress(NIFTI), "a NIfTI volume", SLICER),
    "b.nii.gz": (b"\x1f\x8bdamaged", "a NIfTI volume", SLICER),
    "a.nrrd": (b"NRRD0004\ntype: short\n", "an NRRD volume", SLICER),
    "a.mhd": (b"ObjectType = Image\nNDims = 3\n", "a MetaImage volume", SLICER),
    "a.mha": (b"Comment = x\nNDims = 3\n", "a MetaImage volume", SLICER),
    "a.lif": (b"\x70\0\0\0" + bytes(100), "a Leica LIF file", QUPATH),
    "a.nd2": (b"\xda\xce\xbe\x0a" + bytes(100), "a Nikon ND2 file", QUPATH),
    "a.oir": (b"OLYMPUSRAWFORMAT" + bytes(100), "an Olympus OIR file", QUPATH),
    "a.mp4": (b"\0\0\0\x18ftypmp42" + bytes(100), "a video", PNG),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_supported_is_called_by_its_name(tmp_path, name):
    content, kind, remedy = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    outcome = dragonfly("info", tmp_path / name)
    expect_error(outcome, 4, name, kind, "not supported")
    assert remedy in outcome.error_lines[1]
    assert ((tmp_path / name) in list_images(tmp_path)) == (name not in ("a.svg", "a.pdf", "a.gz", "a.mp4"))


@pytest.mark.parametrize("name", ["a.vsi", "a.nd2"])
def test_a_preview_is_not_shown_for_the_slide(tmp_path, name):
    """The TIFF in a .vsi is a thumbnail or the label, with the patient's name on it; an old .nd2 is a JPEG 2000."""
    Image.new("RGB", (64, 64)).save(tmp_path / name, format="TIFF" if name == "a.vsi" else "JPEG2000")
    expect_error(dragonfly("info", tmp_path / name), 4, name, "not supported")


def test_a_zarr_folder_is_called_by_its_name(tmp_path):
    (tmp_path / "a.zarr").mkdir()
    (tmp_path / "a.zarr" / ".zgroup").write_text("{}")
    expect_error(dragonfly("info", tmp_path / "a.zarr"), 4, "a.zarr", "a Zarr image")


@pytest.mark.parametrize("bits", [8, 10, 12, 16])
@pytest.mark.parametrize("bands", [3, 4])
def test_white_stays_white_in_deep_jpeg_2000(tmp_path, bits, bands):
    """Pillow rounds what is nearly white up to 256, which is black in 8 bits."""
    top = 2**bits - 1
    ramp = np.linspace(0, top, 64).round().astype(np.uint16 if bits > 8 else np.uint8).reshape(8, 8)
    values = np.stack([ramp, ramp.T, ramp[::-1], np.full_like(ramp, top)], -1)
    values = np.ascontiguousarray(values[..., :bands])
    stream = imagecodecs.jpeg2k_encode(values, level=0, bitspersample=bits)
    (tmp_path / "a.jp2").write_bytes(stream)
    expected = np.rint(values[..., :3] * (255 / top))
    assert np.abs(pixels(tmp_path / "a.jp2") - expected).max() <= 1


def test_an_animated_png_is_read_in_any_order(tmp_path):
    frames = np.random.default_rng(0).integers(0, 256, (4, 48, 64, 3), np.uint8)
    first, *others = map(Image.fromarray, frames)
    first.save(tmp_path / "a.png", save_all=True, append_images=others)
    source = open_source(tmp_path / "a.png")
    for number in (3, 1, 2, 0, 3, 0, 2, 1):
        assert np.array_equal(np.asarray(source.view(Box(0, 0, 64, 48), number)), frames[number])


@pytest.mark.parametrize("compression", [None, "zlib"])
def test_planes_of_16_bits_are_colours(tmp_path, compression):
    """Pillow would show the bytes of the first as pixels."""
    planes = np.stack([np.full((4, 4), value, np.uint16) for value in (65535, 0, 257 * 9)])
    how = {"photometric": "rgb", "planarconfig": "separate", "compression": compression}
    tifffile.imwrite(tmp_path / "a.tif", planes, **how)
    assert whole(tmp_path / "a.tif")[1].getpixel((2, 2)) == (255, 0, 9)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_colours_of_16_bits_are_turned_too(tmp_path, orientation):
    upright = np.zeros((20, 44, 3), np.uint8)
    upright[:10, :10], upright[10:, 34:] = (255, 0, 9), (0, 100, 200)
    stored = np.asarray(turned(Image.fromarray(upright), orientation))
    about = {"photometric": "rgb", "extratags": [(0x0112, "H", 1, orientation, True)], "metadata": None}
    tifffile.imwrite(tmp_path / "a.tif", stored.astype(np.uint16) * 257, **about)
    source, shown = whole(tmp_path / "a.tif")
    assert source.size_wh == (44, 20) and np.array_equal(np.asarray(shown), upright)


def test_each_page_of_16_bit_colours_is_its_own(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for level in (10, 20, 30):
            tiff.write(np.full((4, 5, 3), level * 257, np.uint16), photometric="rgb", metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert [source.view(Box(0, 0, 1, 1), frame).getpixel((0, 0))[0] for frame in (2, 0, 1)] == [30, 10, 20]


def test_webp_in_a_tiff_is_shown_and_nothing_written_to_stderr(tmp_path, capfd):
    colours = np.random.default_rng(0).integers(0, 256, (20, 30, 3), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", colours, photometric="rgb", compression="webp", compressionargs={"level": -1})
    assert np.array_equal(pixels(tmp_path / "a.tif"), colours) and capfd.readouterr().err == ""


@pytest.mark.parametrize("kind", ["unassalpha", "assocalpha"])
def test_16_bit_colours_are_laid_on_white(tmp_path, kind):
    values = np.full((4, 4, 4), 65535, np.uint16)
    values[..., 1:3] = 0
    values[:2] = 0 if kind == "assocalpha" else (65535, 0, 0, 0)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", extrasamples=[kind])
    assert pixels(tmp_path / "a.tif")[:, 0].tolist() == [[255, 255, 255]] * 2 + [[255, 0, 0]] * 2


@pytest.mark.parametrize(("compression", "word"), [(None, "damaged"), ("zlib", "cut short")])
def test_16_bit_colours_that_are_cut_short_are_refused(tmp_path, compression, word):
    values = np.random.default_rng(0).integers(0, 65535, (64, 64, 3), np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", values, photometric="rgb", compression=compression)
    content = (tmp_path / "a.tif").read_bytes()
    (tmp_path / "a.tif").write_bytes(content[: len(content) * 2 // 3])
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif", word)


@pytest.mark.parametrize("compression", ["tiff_lzw", "tiff_deflate", "packbits"])
@pytest.mark.parametrize("about", [{}, {"icc_profile": swapping_profile()}, {"strip_size": 1000}])
def test_a_tiff_without_its_last_bytes_is_not_shown_in_other_colours(tmp_path, compression, about, capfd):
    """libtiff writes what a byte means, and the profile, behind the pixels."""
    path = tmp_path / "a.tif"
    Image.fromarray(tissue_like((90, 60))).save(path, compression=compression, **about)
    stored = path.read_bytes()
    for lost in (*range(1, 40, 3), *range(60, 1000, 90)):
        path.write_bytes(stored[:-lost])
        expect_error(dragonfly("info", path), 4, "a.tif")
    assert capfd.readouterr().err == ""


@pytest.mark.parametrize("layout", [{}, {"rowsperstrip": 16}])
@pytest.mark.parametrize("mode", ["RGB", "L", "P", "CMYK"])
def test_a_deflated_tiff_whose_checksum_is_wrong_is_refused(tmp_path, mode, layout):
    image, path = Image.fromarray(tissue_like((90, 60))), tmp_path / "a.tif"
    if layout:
        tifffile.imwrite(path, np.asarray(image), photometric="rgb", compression="zlib", **layout)
    else:
        image.convert(mode).save(path, compression="tiff_adobe_deflate")
    assert dragonfly("info", path).code == 0
    with tifffile.TiffFile(path) as tiff:
        end = tiff.pages[0].dataoffsets[-1] + tiff.pages[0].databytecounts[-1]
    stored = bytearray(path.read_bytes())
    stored[end - 1] ^= 1  # of the Adler-32
    path.write_bytes(stored)
    expect_error(dragonfly("info", path), 4, "a.tif: the image data is damaged")


@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_jpeg_tiff_that_has_lost_a_block_is_refused(tmp_path, mode):
    """It would be grey from there on."""
    path = tmp_path / "a.tif"
    Image.fromarray(tissue_like((400, 300))).convert(mode).save(path, compression="jpeg", quality=90)
    assert dragonfly("info", path).code == 0
    with tifffile.TiffFile(path) as tiff:
        middle = tiff.pages[0].dataoffsets[-1] + tiff.pages[0].databytecounts[-1] // 2
    stored = bytearray(path.read_bytes())
    stored[middle : middle + 256] = bytes(256)
    path.write_bytes(stored)
    expect_error(dragonfly("info", path), 4, "a.tif: the image data is damaged")


def test_a_page_is_shown_by_its_own_profile(tmp_path):
    colours = np.full((8, 8, 3), (10, 20, 200), np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for profile in (None, swapping_profile(), None):
            tiff.write(colours, photometric="rgb", metadata=None, iccprofile=profile)
    source = open_source(tmp_path / "a.tif")
    seen = [source.view(Box(0, 0, 1, 1), frame).getpixel((0, 0)) for frame in (0, 1, 2, 0)]
    assert seen == [(10, 20, 200), (200, 20, 10), (10, 20, 200), (10, 20, 200)]


@pytest.mark.parametrize("lost", range(20, 200, 9))
def test_a_damaged_stack_is_no_bug(tmp_path, lost):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((2, 48, 64, 3), np.uint8), photometric="rgb")
    (tmp_path / "a.tif").write_bytes((tmp_path / "a.tif").read_bytes()[:-lost])
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif")


def test_planes_behind_the_only_page_of_imagej_are_told(tmp_path):
    planes = np.stack([tissue_like((40, 30))[..., channel] for channel in range(3)])
    tifffile.imwrite(tmp_path / "a.tif", planes, imagej=True, metadata={"axes": "ZYX"}, truncate=True)
    source, image = whole(tmp_path / "a.tif")
    assert source.warnings == ["only one of 3 channels, focal planes or time points is shown"]
    assert np.array_equal(np.asarray(image)[..., 0], planes[0])


def test_a_damaged_avif_is_no_bug(tmp_path):
    Image.fromarray(tissue_like((64, 64))).save(tmp_path / "a.avif")
    stored = (tmp_path / "a.avif").read_bytes()
    codes = set()
    for place in range(len(stored) - 240, len(stored), 24):
        (tmp_path / "a.avif").write_bytes(stored[:place] + bytes([stored[place] ^ 255]) + stored[place + 1 :])
        codes.add(dragonfly("info", tmp_path / "a.avif").code)
    assert codes in ({4}, {0, 4})  # the format has no checksum


def of_bits(bits):
    """Every value of so many bits."""
    return np.arange(2**bits, dtype=np.uint16).reshape(2 ** (bits // 2), -1)


BEYOND_PILLOW = {
    "LERC": (8, {"compression": "lerc"}),
    "PNG": (8, {"compression": "png"}),
    "JPEG XL": (8, {"compression": "jpegxl"}),
    "10 bits": (10, {"bitspersample": 10}),
    "14 bits": (14, {"bitspersample": 14}),
    "big-endian negative": (16, {"byteorder": ">", "photometric": "miniswhite"}),
}


@pytest.mark.parametrize("kind", BEYOND_PILLOW)
def test_what_pillow_cannot_open_looks_in_a_small_tiff_as_in_a_slide(tmp_path, kind):
    bits, about = BEYOND_PILLOW[kind]
    stored = of_bits(bits).astype(np.uint8 if bits == 8 else np.uint16)
    tifffile.imwrite(tmp_path / "a.tif", stored, **{"photometric": "minisblack", "metadata": None} | about)
    facts = dragonfly("info", tmp_path / "a.tif", "--json").json
    assert (facts["kind"], facts["mode"], facts["warnings"]) == ("raster", "L", [])
    seen = stored * (255 / (2**bits - 1))
    seen = 255 - seen if "photometric" in about else seen
    assert np.abs(pixels(tmp_path / "a.tif") - seen[..., None]).max() < 1


def test_16_bit_grey_is_laid_on_white(tmp_path):
    values = np.array([[[0, 65535], [257 * 9, 65535], [0, 0]]], np.uint16)
    about = {"photometric": "minisblack", "planarconfig": "contig", "extrasamples": ["unassalpha"]}
    tifffile.imwrite(tmp_path / "a.tif", values, **about)
    assert pixels(tmp_path / "a.tif")[0, :, 0].tolist() == [0, 9, 255]


def test_what_is_not_shown_of_a_tiff_that_pillow_cannot_open_is_told(tmp_path):
    levels = np.arange(1, 250, 2, dtype=np.uint8).reshape(5, 25)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for page in (levels, 255 - levels):
            tiff.write(page, compression="lerc", iccprofile=grey_profile(3.0), metadata=None)
    source, image = whole(tmp_path / "a.tif")
    assert source.warnings == ["only one of 2 channels, focal planes or time points is shown"]
    assert (np.asarray(image)[..., 0] < levels).mean() > 0.9  # by the profile


@pytest.mark.parametrize("kept", [0.5, 0.95])
def test_a_tiff_that_pillow_cannot_open_is_refused_where_it_is_cut_short(tmp_path, kept):
    tifffile.imwrite(tmp_path / "a.tif", tissue_like((400, 300)), photometric="rgb", compression="lerc", rowsperstrip=9)
    (tmp_path / "a.tif").write_bytes(
        (tmp_path / "a.tif").read_bytes()[: int(kept * (tmp_path / "a.tif").stat().st_size)]
    )
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif", "cut short")


def test_an_unsupported_tiff_is_not_called_damaged_only(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((4, 4, 3), np.float32), photometric="rgb")
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif", "not supported (3 x float32, NONE)")


def test_cmyk_is_shown_in_its_colours(tmp_path):
    Image.new("CMYK", (8, 8), (0, 255, 255, 0)).save(tmp_path / "a.tif")
    red, green, blue = whole(tmp_path / "a.tif")[1].getpixel((3, 3))
    assert red > 200 and green < 60 and blue < 60


def test_pages_are_frames(tmp_path):
    pages = [Image.new("RGB", (6, 4), color) for color in ("red", "lime", "blue")]
    pages[0].save(tmp_path / "a.tif", save_all=True, append_images=pages[1:])
    source = open_source(tmp_path / "a.tif")
    seen = [source.view(Box(0, 0, 1, 1), frame).getpixel((0, 0)) for frame in (2, 0, 1)]
    assert source.frames == 3 and seen == [(0, 0, 255), (255, 0, 0), (0, 255, 0)]
    with pytest.raises(InputError, match="no frame 3"):
        source.view(Box(0, 0, 1, 1), 3)


def write_pages(path, *pages):
    with tifffile.TiffWriter(path) as tiff:
        for page in pages:
            tiff.write(page, photometric="rgb", metadata=None)
    return path


def test_a_thumbnail_before_the_picture_is_not_shown_for_it(tmp_path):
    """It is not marked as one."""
    picture = tissue_like((400, 300))
    path = write_pages(tmp_path / "a.tif", np.ascontiguousarray(picture[::10, ::10]), picture)
    facts = dragonfly("info", path, "--json").json
    assert (facts["width"], facts["frames"], facts["warnings"]) == (400, 1, [])
    assert dragonfly("view", path, "--what", "display", "-o", tmp_path / "seen.png").code == 0
    assert np.array_equal(pixels(tmp_path / "seen.png"), picture)


def test_of_pages_of_unequal_size_the_largest_are_frames_and_others_are_told(tmp_path):
    """Also those of the same size whose samples are of another kind."""
    first, second = tissue_like((400, 300), 1), tissue_like((400, 300), 2)
    path = write_pages(
        tmp_path / "a.tif", tissue_like((300, 300)), first, second.astype(np.uint16) * 257, tissue_like((200, 280))
    )
    told = "only the largest of 3 pictures in the file is shown; not that of 300 x 300 px, 200 x 280 px"
    facts = dragonfly("info", path, "--json").json
    assert (facts["frames"], facts["width"], facts["warnings"]) == (2, 400, [told])
    for frame in (1, 0):
        assert np.array_equal(np.asarray(whole(path, frame)[1]), (first, second)[frame])


def test_a_page_that_is_turned_to_another_size_is_refused(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for orientation in (1, 6):
            tiff.write(np.zeros((4, 6), np.uint8), metadata=None, extratags=[(0x0112, "H", 1, orientation, True)])
    with pytest.raises(InputError, match="size differs"):
        open_source(tmp_path / "a.tif").view(Box(0, 0, 6, 4), 1)


def test_a_stack_that_lacks_its_end_is_refused(tmp_path):
    path = write_pages(tmp_path / "a.tif", *(tissue_like((40, 30), seed) for seed in range(4)))
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    expect_error(dragonfly("info", path), 4, "a.tif", "damaged")


def test_pictures_above_pillows_own_limit_open_silently(tmp_path):
    Image.new("1", (15000, 12500)).save(tmp_path / "a.png")  # 187 megapixels, one bit each
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_source(tmp_path / "a.png").size_wh == (15000, 12500)
    assert limit == Image.MAX_IMAGE_PIXELS
