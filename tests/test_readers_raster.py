"""Ordinary pictures: what a viewer would show, and clean refusals."""

import warnings

import imagecodecs
import numpy as np
import pytest
import tifffile
from PIL import Image
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
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}  # Pillow's transpose method that a camera applied
    stored = Image.fromarray(upright)
    if orientation > 1:
        stored = stored.transpose(Image.Transpose(undo[orientation]))
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
    undo = {2: 0, 3: 3, 4: 1, 5: 5, 6: 2, 7: 6, 8: 4}
    stored = image.transpose(Image.Transpose(undo[orientation])) if orientation > 1 else image
    stored.save(tmp_path / "a.tif", tiffinfo={0x0112: orientation})
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


@pytest.mark.parametrize("dtype", [np.int8, np.int16, np.int32, np.uint32])
def test_the_sign_of_samples_is_that_of_the_file(tmp_path, dtype):
    """Half of the values would be taken for the other end of the range."""
    low, high = np.iinfo(dtype).min, np.iinfo(dtype).max
    tifffile.imwrite(tmp_path / "a.tif", np.array([[low, low // 2 + high // 2, high]], dtype))
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


FOREIGN = {
    "a.heic": (b"\0\0\0\x18ftypheic\0\0\0\0mif1heic", "a HEIC picture"),
    "a.jxl": (b"\xff\x0a" + bytes(40), "a JPEG XL picture"),
    "a.svg": (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "an SVG drawing"),
    "a.pdf": (b"%PDF-1.7\n", "a PDF"),
    "a.nii": (b"\x5c\1\0\0" + bytes(340) + b"n+1\0" + bytes(100), "a NIfTI volume"),
    "a.mp4": (b"\0\0\0\x18ftypmp42" + bytes(100), "a video"),
}


@pytest.mark.parametrize("name", FOREIGN)
def test_what_is_not_supported_is_called_by_its_name(tmp_path, name):
    content, kind = FOREIGN[name]
    (tmp_path / name).write_bytes(content)
    expect_error(dragonfly("info", tmp_path / name), 4, name, kind, "not supported")
    assert ((tmp_path / name) in list_images(tmp_path)) == (name in ("a.heic", "a.jxl", "a.nii"))


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


def test_planes_of_16_bits_are_refused_and_packed_ones_shown(tmp_path):
    """Pillow would show the bytes of the first as pixels."""
    planes = np.stack([np.full((4, 4), value, np.uint16) for value in (65535, 0, 257 * 9)])
    how = {"photometric": "rgb", "planarconfig": "separate"}
    tifffile.imwrite(tmp_path / "a.tif", planes, **how)
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif: its colours lie in separate planes of 16 bits")
    tifffile.imwrite(tmp_path / "b.tif", planes, compression="zlib", **how)
    assert whole(tmp_path / "b.tif")[1].getpixel((2, 2)) == (255, 0, 9)


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


def test_a_page_of_another_size_is_refused(tmp_path):
    Image.new("RGB", (6, 4)).save(tmp_path / "a.tif", save_all=True, append_images=[Image.new("RGB", (3, 2))])
    with pytest.raises(InputError, match="size differs"):
        open_source(tmp_path / "a.tif").view(Box(0, 0, 6, 4), 1)


def test_pictures_above_pillows_own_limit_open_silently(tmp_path):
    Image.new("1", (15000, 12500)).save(tmp_path / "a.png")  # 187 megapixels, one bit each
    limit = Image.MAX_IMAGE_PIXELS
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert open_source(tmp_path / "a.png").size_wh == (15000, 12500)
    assert limit == Image.MAX_IMAGE_PIXELS
