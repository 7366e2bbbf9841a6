"""What else is a slide: plain and OME TIFF; the scale and the colours that files tell."""

import re
import struct
import zlib

import imagecodecs
import numpy as np
import pytest
import tifffile
from make_files import SCN, grey_profile, swapping_profile, tissue_like, write_svs
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import open_source, pyramid, slide_tiff, slide_tiles
from dragonfly_cli.readers.slide_scale import scale_of

APERIO = "Aperio Image Library v12.0.0\r\n600x500 [0,0 600x500] (256x256) JPEG/RGB|MPP = 0.5"
APERIO_JPEG_2000, APERIO_JPEG_2000_YCBCR = 33005, 33003  # TIFF Compression


@pytest.fixture(autouse=True)
def small_is_large(monkeypatch):
    monkeypatch.setattr(slide_tiff, "SMALLEST_PIXELS", 100_000)


def whole(source, size):
    return np.asarray(source.view(Box(0, 0, *source.size_wh)).resize(size)).astype(int)


@pytest.mark.parametrize("layout", [{"rowsperstrip": 16}, {"tile": (128, 128)}, {"rowsperstrip": 500}])
def test_a_large_plain_tiff_is_a_slide_of_one_level(tmp_path, layout):
    pixels = tissue_like((600, 500))
    path = tmp_path / "plain.tif"
    tifffile.imwrite(
        path,
        pixels,
        photometric="rgb",
        resolution=(20_000, 20_000),
        resolutionunit="CENTIMETER",
        compression="zlib",
        **layout,
    )
    source = open_source(path)
    assert (source.kind, source.size_wh, source.mpp, source.mpp_source) == (
        "slide",
        (600, 500),
        (0.5, 0.5),
        "resolution",
    )
    assert np.array_equal(whole(source, (600, 500)), pixels)


@pytest.mark.parametrize("rows", [3, 16, 200])
def test_every_strip_of_a_wide_tiff_is_decoded_once(tmp_path, monkeypatch, rows):
    monkeypatch.setattr(pyramid, "BLOCK_SIDE_PX", 128)
    monkeypatch.setattr(pyramid, "MAX_REGION_PIXELS", 20_000)
    monkeypatch.setattr(slide_tiles, "KEPT_BYTES", 2 * 1400 * 3 * rows)
    pixels = tissue_like((1400, 1000))
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=rows, compression="zlib")
    decoded = []
    original = slide_tiles.SegmentedPage._decode
    monkeypatch.setattr(
        slide_tiles.SegmentedPage, "_decode", lambda page, index: decoded.append(index) or original(page, index)
    )
    seen = whole(open_source(tmp_path / "a.tif"), (70, 50))
    assert sorted(decoded) == list(range(-(-1000 // rows)))
    assert np.abs(seen - pixels.reshape(50, 20, 70, 20, 3).mean(axis=(1, 3))).mean() < 2


@pytest.mark.parametrize(
    ("kind", "content", "mpp"),
    [
        ("FLOAT", struct.pack("<f", 20_000), [0.5, 0.5]),
        ("LONG", struct.pack("<I", 20_000), [0.5, 0.5]),
        ("FLOAT", struct.pack("<f", np.nan), None),
        ("ASCII", b"abc\0", None),
        ("RATIONAL", struct.pack("<I", 2**31), None),  # it would lie behind the end of the file
    ],
)
def test_a_resolution_of_another_type_is_read_or_costs_the_scale_alone(tmp_path, kind, content, mpp):
    path, pixels = tmp_path / "a.tif", tissue_like((600, 500))
    about = {"photometric": "rgb", "tile": (128, 128), "resolution": (20_000, 20_000), "resolutionunit": "CENTIMETER"}
    tifffile.imwrite(path, pixels, **about)
    with tifffile.TiffFile(path) as tiff:
        places = [tiff.pages[0].tags[f"{axis}Resolution"].offset for axis in "XY"]
    stored = bytearray(path.read_bytes())
    for place in places:
        count = len(content) if kind == "ASCII" else 1
        stored[place + 2 : place + 12] = struct.pack("<HI", tifffile.DATATYPE[kind], count) + content
    path.write_bytes(stored)
    assert dragonfly("info", path, "--json").json["mpp"] == mpp
    assert np.array_equal(whole(open_source(path), (600, 500)), pixels)


def test_a_pyramid_in_sub_images_is_found(tmp_path):
    pixels = tissue_like((1024, 768))
    path = tmp_path / "levels.ome.tif"
    about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5, "PhysicalSizeXUnit": "µm"}
    with tifffile.TiffWriter(path, ome=True) as tiff:
        tiff.write(pixels, photometric="rgb", tile=(128, 128), subifds=2, metadata=about)
        for factor in (2, 4):
            tiff.write(pixels[::factor, ::factor], photometric="rgb", tile=(128, 128), subfiletype=1)
    source = open_source(path)
    assert (source.format, source.mpp, source.mpp_source) == ("ome-tiff", (0.25, 0.5), "file")
    assert [level["width"] for level in source.details()["levels"]] == [1024, 512, 256]
    assert np.array_equal(whole(source, (256, 192)), pixels[::4, ::4])


def write_ome(path, pixels, description=None):
    about = {"axes": "YXS", "PhysicalSizeX": 0.25, "PhysicalSizeY": 0.5}
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(128, 128), metadata=about)
    if description is not None:
        tifffile.tiffcomment(path, description)
    return path


@pytest.mark.parametrize("is_ome", [True, False])
def test_a_scale_that_differs_along_both_sides_is_told(tmp_path, is_ome):
    path = tmp_path / ("a.ome.tif" if is_ome else "a.tif")
    common = {"photometric": "rgb", "tile": (128, 128)}
    if is_ome:
        common["metadata"] = {"axes": "YXS", "PhysicalSizeX": 0.5, "PhysicalSizeY": 1.0}
    else:
        common |= {"resolution": (20_000, 10_000), "resolutionunit": "CENTIMETER", "metadata": None}
    tifffile.imwrite(path, tissue_like((600, 500)), **common)
    facts = dragonfly("info", path, "--json").json
    assert facts["mpp"] == [0.5, 1.0]
    assert facts["warnings"] == [
        "the file gives 0.5 microns per pixel across and 1 down: if that is wrong, --slide-mpp gives them exactly"
    ]
    told = "--slide-mpp 0.5 is taken, though the file says 0.5 by 1 microns per pixel"
    assert dragonfly("info", path, "--json", "--slide-mpp", "0.5").json["warnings"] == [told]


def test_an_ome_file_of_one_level_tells_its_scale(tmp_path):
    source = open_source(write_ome(tmp_path / "a.ome.tif", tissue_like((600, 500))))
    assert (source.format, source.mpp, source.mpp_source) == ("ome-tiff", (0.25, 0.5), "file")


@pytest.mark.parametrize(
    "header", ["<OME><Image", "<OME/>", '<OME><Image><Pixels SizeX="600" SizeY="500"/></Image></OME>']
)
def test_an_ome_header_that_says_nothing_costs_the_scale_alone(tmp_path, header):
    path = write_ome(tmp_path / "a.ome.tif", tissue_like((600, 500)), header)
    facts = dragonfly("info", path, "--json").json
    assert (facts["width"], facts["mpp"]) == (600, None)
    assert "microns per pixel" in facts["warnings"][0]


OME_OF_FILES = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:{own}">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYCZT" Type="uint8" SizeX="640" SizeY="512" SizeC="3"
SizeZ="2" SizeT="1" PhysicalSizeX="0.5" PhysicalSizeY="0.5"><Channel ID="Channel:0" SamplesPerPixel="3"/>
<TiffData FirstZ="0" PlaneCount="1"><UUID FileName="a.ome.tif">urn:a</UUID></TiffData>
<TiffData FirstZ="1" PlaneCount="1"><UUID FileName="b.ome.tif">urn:b</UUID></TiffData></Pixels></Image></OME>"""


def write_focal_plane(folder, name, pixels, compression):
    common = {"photometric": "rgb", "tile": (128, 128), "compression": compression, "metadata": None}
    with tifffile.TiffWriter(folder / f"{name}.ome.tif", ome=False) as tiff:
        tiff.write(pixels, description=OME_OF_FILES.format(own=name), subifds=2, **common)
        for factor in (2, 4):
            tiff.write(np.ascontiguousarray(pixels[::factor, ::factor]), subfiletype=1, **common)


@pytest.mark.parametrize("compression", ["jpeg", "zlib"])
def test_every_file_of_a_pyramid_in_several_shows_its_own_levels(tmp_path, compression):
    """Each names both; the places and lengths of the tiles of one are not those of the other."""
    planes = {"a": tissue_like((640, 512), 1) // 16 * 16, "b": np.ascontiguousarray(tissue_like((640, 512), 2)[::-1])}
    for name, pixels in planes.items():
        write_focal_plane(tmp_path, name, pixels, compression)
    for name, pixels in planes.items():
        path = tmp_path / f"{name}.ome.tif"
        facts = dragonfly("info", path, "--json").json
        assert [level["width"] for level in facts["levels"]] == [640, 320, 160]
        assert facts["warnings"] == ["only one of 2 channels, focal planes or time points is shown"]
        assert facts["mpp"] == [0.5, 0.5]
        source = open_source(path)
        for factor in (1, 2, 4):
            seen = whole(source, (640 // factor, 512 // factor))
            assert np.abs(seen - pixels[::factor, ::factor]).mean() < (8 if compression == "jpeg" else 0.01)


def test_a_label_beside_the_picture_is_no_level_of_it_and_gives_no_scale(tmp_path):
    picture, label = tissue_like((1200, 1000)), np.full((200, 240, 3), 90, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.ome.tif", ome=True) as tiff:
        tiff.write(label, photometric="rgb", tile=(128, 128), metadata={"PhysicalSizeX": 9, "PhysicalSizeY": 9})
        tiff.write(picture, photometric="rgb", tile=(128, 128), metadata={"PhysicalSizeX": 0.25, "PhysicalSizeY": 0.25})
    for name, layout in (("a.tif", {"rowsperstrip": 16}), ("b.tif", {"tile": (128, 128)})):
        scale = {"resolution": (40_000, 40_000), "resolutionunit": 3}
        with tifffile.TiffWriter(tmp_path / name) as tiff:
            tiff.write(picture, photometric="rgb", tile=(128, 128), compression="jpegxl", **scale)
            tiff.write(label[:-8], photometric="rgb", **layout)  # of nearly the same shape
    for name in ("a.ome.tif", "a.tif", "b.tif"):
        source = open_source(tmp_path / name)
        assert [level["width"] for level in source.details()["levels"]] == [1200]
        assert source.mpp == (0.25, 0.25)
        assert np.abs(whole(source, (240, 200)) - 90).max(axis=-1).min() > 30  # nothing of the label is seen


@pytest.mark.parametrize("layout", [{"tile": (128, 128)}, {"rowsperstrip": 64}], ids=["tiles", "strips"])
@pytest.mark.parametrize("is_ome", [True, False])
def test_a_picture_that_is_not_shown_is_told(tmp_path, layout, is_ome):
    """A second scene; of plain TIFF OpenSlide shows the first page, whatever its size."""
    small, large = 255 - tissue_like((1100, 900), 1), tissue_like((1200, 1000))
    path = tmp_path / ("a.ome.tif" if is_ome else "a.tif")
    with tifffile.TiffWriter(path, ome=is_ome) as tiff:
        for pixels in (small, large):
            tiff.write(pixels, photometric="rgb", metadata={} if is_ome else None, **layout)
    source = open_source(path)
    assert np.array_equal(whole(source, (1200, 1000)), large)
    assert "only the largest of 2 pictures in the file is shown; not that of 1100 x 900 px" in source.warnings


RED = (255, 0, 0)


@pytest.mark.parametrize(
    ("size_wh", "told"),
    [
        ((300, 250), "a level of 300 x 250 px shows another picture, and is not used"),
        ((500, 300), "only the largest of 2 pictures in the file is shown; not that of 500 x 300 px"),
    ],
)
def test_a_reduced_page_of_another_picture_is_no_level(tmp_path, size_wh, told):
    pixels, other = tissue_like((1200, 1000)), np.full((*size_wh[::-1], 3), RED, np.uint8)
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        tiff.write(pixels, photometric="rgb", tile=(128, 128), metadata=None)
        for page in (pixels[::2, ::2], other):
            page = np.ascontiguousarray(page)
            tiff.write(page, photometric="rgb", tile=(128, 128), subfiletype=1, metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert [level["width"] for level in source.details()["levels"]] == [1200, 600]
    assert told in source.warnings
    assert np.abs(whole(source, (120, 100)) - RED).max(axis=-1).min() > 100


@pytest.mark.parametrize("name", ["a.tif", "a.ome.tif", "a.svs"])
def test_places_are_right_to_the_end_of_a_narrow_slide_whose_levels_are_rounded(tmp_path, name):
    """650 x 6415 px are 20 x 200 at a 32nd: as if the factor were 32.5 across and 32.08 along."""
    width, height, square = 650, 6415, Box(320, 6016, 96, 192)
    pixels = np.full((height, width, 3), 244, np.uint8)
    pixels[square.y : square.y + square.height, square.x : square.x + square.width] = (0, 0, 255)
    levels = [np.ascontiguousarray(pixels[: height // f * f : f, : width // f * f : f]) for f in (4, 32)]
    text = f"Aperio Image Library v12.0.0\r\n{width}x{height} (256x256) JPEG/RGB|MPP = 0.5" if name == "a.svs" else None
    common = {"photometric": "rgb", "tile": (128, 128), "description": text, "software": False}
    is_ome = name == "a.ome.tif"
    with tifffile.TiffWriter(tmp_path / name, ome=is_ome) as tiff:
        tiff.write(pixels, metadata={} if is_ome else None, subifds=2 if is_ome else None, **common)
        if text:
            tiff.write(pixels[::40, ::40].copy(), photometric="rgb", rowsperstrip=16, description=text, metadata=None)
        for level in levels:
            tiff.write(level, metadata=None, subfiletype=0 if text else 1, **common)
    source = open_source(tmp_path / name)
    assert [level["downsample"] for level in source.details()["levels"]] == [1, 4, 32]
    around = Box(0, 5760, 640, 640)  # 20 x 20 pixels of the coarsest level
    blue = np.asarray(source.view(around).resize((20, 20)))[..., 0] < 122
    rows, columns = np.nonzero(blue)
    assert (columns.min() * 32, columns.max() * 32 + 32) == (320, 416)
    assert (rows.min() * 32 + 5760, rows.max() * 32 + 32 + 5760) == (6016, 6208)


@pytest.mark.parametrize(
    ("size_wh", "known"), [((700, 500), [1, 2, 4]), ((768, 768), [1, 2]), ((1500, 700), [1, 2, 4, 8])]
)
def test_places_are_right_on_levels_that_are_padded_to_whole_tiles(tmp_path, size_wh, known):
    """Their sizes are multiples of the tile, as if of other scales; where several fit, the level is not used."""
    pixels = np.full((*size_wh[::-1], 3), 244, np.uint8)
    pixels[160:320, 320:640] = tissue_like((320, 160)) // 2
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for factor in (1, 2, 4, 8):
            level = pixels[::factor, ::factor]
            padding = [(0, -length % 128 * (factor > 1)) for length in level.shape[:2]]
            level = np.pad(level, [*padding, (0, 0)], constant_values=255)
            tiff.write(level, photometric="rgb", tile=(128, 128), subfiletype=int(factor > 1), metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert [level["downsample"] for level in source.details()["levels"]] == known
    assert not any("picture" in warning for warning in source.warnings)
    for factor in (1, 2, 4, 8):
        dark = whole(source, (size_wh[0] // factor, size_wh[1] // factor))[..., 1] < 150
        edges = [edge * factor for places in np.nonzero(dark) for edge in (places.min(), places.max() + 1)]
        assert np.abs(np.subtract(edges, [160, 320, 320, 640])).max() <= 2 * factor


@pytest.mark.parametrize("compression", ["lzw", "zstd", "lzma", "png", "jpegxr", "lerc", "packbits"])
@pytest.mark.parametrize("layout", [{"tile": (128, 128)}, {"rowsperstrip": 64}], ids=["tiles", "strips"])
def test_every_compression_of_tifffile_s_is_read_from_tiles_and_strips(tmp_path, compression, layout):
    pixels = tissue_like((400, 300))
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", compression=compression, **layout)
    assert np.array_equal(whole(open_source(tmp_path / "a.tif"), (400, 300)), tifffile.imread(tmp_path / "a.tif"))


@pytest.mark.parametrize("invert", [False, True])
def test_grey_of_16_bits_is_shown_as_it_looks(tmp_path, invert):
    values = np.linspace(0, 65535, 500 * 400).reshape(400, 500).astype(np.uint16)
    path = tmp_path / "grey.tif"
    photometric = "miniswhite" if invert else "minisblack"
    tifffile.imwrite(path, values, photometric=photometric, rowsperstrip=50)
    seen = whole(open_source(path), (500, 400))[..., 0]
    expected = (values // 257).astype(int)
    assert np.abs(seen - (255 - expected if invert else expected)).max() <= 1


def test_a_tiff_that_is_no_picture_is_refused(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", np.zeros((400, 500), np.float32), rowsperstrip=50)
    expect_error(dragonfly("info", tmp_path / "a.tif"), 4, "a.tif", "float32")


@pytest.mark.parametrize("layout", [{"tile": (128, 128)}, {"rowsperstrip": 50}])
def test_channels_that_are_not_shown_are_told(tmp_path, layout):
    channels = np.stack([tissue_like((600, 500))[..., channel] for channel in range(3)])
    path = tmp_path / "a.ome.tif"
    tifffile.imwrite(path, channels, photometric="minisblack", metadata={"axes": "CYX"}, **layout)
    source = open_source(path)
    assert np.abs(whole(source, (600, 500)) - channels[0][..., None]).max() <= 1
    assert "only one of 3 channels, focal planes or time points is shown" in source.warnings


@pytest.mark.parametrize("dtype", [np.float32, np.uint32, np.int16])
def test_a_tiled_tiff_of_values_that_openslide_shows_white_is_refused(tmp_path, dtype):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue_like((600, 500))[..., 1].astype(dtype), tile=(128, 128), photometric="minisblack")
    outcome = dragonfly("ask", path, "Is there a tumour?")
    expect_error(outcome, 4, "a.tif", f"1 samples of {np.dtype(dtype)} (MINISBLACK) are no grey or colour picture")


def test_a_tiff_that_is_cut_short_is_refused(tmp_path):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue_like((600, 500)), photometric="rgb", rowsperstrip=16)
    path.write_bytes(path.read_bytes()[:2000])
    expect_error(dragonfly("ask", path, "Is there necrosis?"), 4, "a.tif")


def test_a_height_beyond_its_table_of_pixels_is_refused_at_once(tmp_path):
    tifffile.imwrite(tmp_path / "a.tif", tissue_like((160, 120)), photometric="rgb", compression="lzw")
    with tifffile.TiffFile(tmp_path / "a.tif", mode="r+") as tiff:
        tiff.pages[0].tags["ImageLength"].overwrite(3_976_200_288, dtype=tifffile.DATATYPE.LONG)
    expect_error(dragonfly("view", tmp_path / "a.tif", "-o", tmp_path / "a.png"), 4, "a.tif: its table of pixel data")


@pytest.mark.parametrize("followed_by", [0, 1, 2])
@pytest.mark.parametrize("name", ["a.svs", "a.tif", "small.tif"])
def test_pages_that_go_round_in_a_circle_are_refused(tmp_path, name, followed_by):
    """Whoever follows them never comes to an end."""
    path = write_svs(tmp_path / name, (100, 80) if name == "small.tif" else (600, 500), mpp=None)
    if name != "a.svs":
        with tifffile.TiffFile(path, mode="r+") as tiff:
            for page in tiff.pages:
                page.tags["ImageDescription"].overwrite("")
    with tifffile.TiffFile(path) as tiff:
        end, offset = tiff.pages.next_page_offset, tiff.pages[followed_by].offset
    with path.open("r+b") as file:
        file.seek(end)
        file.write(struct.pack("<I", offset))
    expect_error(dragonfly("info", path), 4, name, "its pages follow each other in a circle")


@pytest.mark.parametrize(
    "description",
    [
        '{"shape": [512, 512, 3',
        "ImageJ=1.11a\nimages=x",
        SCN.replace('ifd="0"', 'ifd="9"'),
        SCN.replace("</image>", ""),
    ],
)
def test_a_description_that_is_broken_does_not_put_the_label_in_the_place_of_the_picture(tmp_path, description):
    path, picture, label = tmp_path / "a.tif", tissue_like((640, 512)), np.full((100, 110, 3), 90, np.uint8)
    about = dict.fromkeys(re.findall(r"{(\w+)}", SCN), 100)
    description = description.format(**about) if description.startswith("<") else description
    with tifffile.TiffWriter(path) as tiff:
        tiff.write(label, photometric="rgb", metadata=None, description=description)
        for level in (picture, picture[::2, ::2].copy()):
            tiff.write(level, photometric="rgb", metadata=None, tile=(128, 128))
    source = open_source(path)
    assert [level["width"] for level in source.details()["levels"]] == [640, 320]
    assert np.array_equal(whole(source, (640, 512)), picture)


def replace_tile(path, number, stream):
    """Of level 0, by a stream at the end of the file."""
    end = path.stat().st_size
    path.write_bytes(path.read_bytes() + stream)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        for name, value in (("TileOffsets", end), ("TileByteCounts", len(stream))):
            table = tiff.pages[0].tags[name]
            table.overwrite([*table.value[:number], value, *table.value[number + 1 :]])


def packed(pixels, compression):
    return getattr(imagecodecs, f"{compression}_encode")(pixels)


def as_huge(jpeg):
    """A JPEG that says of itself that it has 65500 rows and columns."""
    frame = jpeg.index(b"\xff\xc0") + 5
    return jpeg[:frame] + struct.pack(">HH", 65500, 65500) + jpeg[frame + 4 :]


TALL, WIDE = (np.full((*shape, 3), 90, np.uint8) for shape in ((256, 64), (64, 256)))


@pytest.mark.parametrize(
    ("compression", "stream"),
    [
        ("jpeg", as_huge(packed(TALL, "jpeg8"))),
        ("jpeg", packed(WIDE, "jpeg8")),
        ("png", packed(WIDE, "png")),
        ("webp", packed(TALL, "webp")),
        ("jpegxl", packed(TALL, "jpegxl")),
        ("jpegxr", packed(WIDE, "jpegxr")),
        ("jpeg2000", packed(WIDE, "jpeg2k")),
    ],
    ids=["huge", "jpeg", "png", "webp", "jpegxl", "jpegxr", "jpeg2000"],
)
def test_a_tile_of_another_size_is_not_put_into_other_rows(tmp_path, compression, stream):
    path, pixels = tmp_path / "a.tif", np.full((500, 600, 3), 200, np.uint8)
    tifffile.imwrite(path, pixels, photometric="rgb", tile=(128, 128), compression=compression, metadata=None)
    replace_tile(path, 6, stream)
    source = open_source(path)
    seen = whole(source, (600, 500))
    assert (seen[128:256, 128:256] == 255).all() and abs(seen[128:256, 256:] - 200).max() < 5
    assert source.warnings[-1].endswith("because they are damaged: level 0, column 1, row 1")


@pytest.mark.parametrize(
    ("height", "layout", "table"),
    [(500, {"tile": (128, 128)}, "Tile"), (500, {"rowsperstrip": 16}, "Strip"), (50, {"rowsperstrip": 16}, "Strip")],
)
def test_what_lies_at_the_head_of_a_file_is_not_shown(tmp_path, height, layout, table):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, np.zeros((height, 600, 3), np.uint8), photometric="rgb", **layout)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        offsets = tiff.pages[0].tags[f"{table}Offsets"]
        offsets.overwrite([0, *offsets.value[1:]])
    if height == 50:
        expect_error(dragonfly("info", path), 4, "a.tif: the image data is damaged")
        return
    source = open_source(path)
    assert (np.asarray(source.view(Box(0, 0, 100, 16)).resize((100, 16))) == 255).all()
    assert source.warnings[-1].endswith("because they are damaged: level 0, column 0, row 0")


@pytest.mark.parametrize("part", [0.5, 2])
@pytest.mark.parametrize("name", ["a.svs", "a.tif", "small.tif"])
def test_a_width_that_does_not_fit_the_table_of_tiles_is_refused(tmp_path, name, part):
    """Every tile after the first row would be shown in another place."""
    path, width = tmp_path / name, 200 if name == "small.tif" else 600
    if name == "a.svs":
        write_svs(path, (width, 500), downsamples=())
    else:
        tifffile.imwrite(path, tissue_like((width, 500)), photometric="rgb", tile=(64, 64))
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["ImageWidth"].overwrite(int(part * width))
    expect_error(dragonfly("info", path), 4, f"{name}: its table of pixel data does not fit its size")


@pytest.mark.parametrize("kept", [0.3, 0.9])
@pytest.mark.parametrize(
    "layout", [{"tile": (128, 128)}, {"tile": (128, 128), "compression": "jpeg"}, {"rowsperstrip": 16}]
)
def test_a_slide_that_lacks_its_end_is_not_answered_from_the_rest(tmp_path, layout, kept):
    path = tmp_path / "a.tif"
    tifffile.imwrite(path, tissue_like((600, 500)), photometric="rgb", **layout)
    path.write_bytes(path.read_bytes()[: int(kept * path.stat().st_size)])
    expect_error(dragonfly("ask", path, "Is there necrosis?"), 4, "a.tif: the file is cut short")


def test_an_aperio_slide_in_jpeg_2000_is_read(tmp_path):
    pixels = tissue_like((600, 500))
    text = "Aperio Image Library v12.0.0\r\n600x500 [0,0 600x500] (256x256) J2K/KDU Q=70|MPP = 0.5"
    with tifffile.TiffWriter(tmp_path / "a.svs") as tiff:
        common = {"photometric": "rgb", "description": text, "metadata": None, "software": False}
        tiff.write(pixels, tile=(256, 256), compression=APERIO_JPEG_2000, **common)
        tiff.write(pixels[::4, ::4].copy(), rowsperstrip=16, **common)
    source = open_source(tmp_path / "a.svs")
    assert (source.format, source.mpp) == ("aperio", (0.5, 0.5))
    assert np.array_equal(whole(source, (600, 500)), pixels)


def test_a_deflated_tile_of_an_aperio_slide_that_is_damaged_is_told(tmp_path):
    """libtiff does not look at the checksum where a stream does not end after the last pixel."""
    pixels, path = tissue_like((600, 500)), tmp_path / "a.svs"
    about = {"photometric": "rgb", "tile": (256, 256), "description": APERIO, "metadata": None, "software": False}
    tifffile.imwrite(path, pixels, compression="zlib", **about)
    assert np.array_equal(whole(open_source(path), (600, 500)), pixels)
    replace_tile(path, 4, zlib.compress(bytes(256 * 256 * 3 + 1))[:-1] + b"?")
    source = open_source(path)
    assert source.format == "aperio" and (whole(source, (600, 500))[256:, 256:512] == 255).all()
    assert source.warnings[-1].endswith("because they are damaged: level 0, column 1, row 1")


@pytest.mark.parametrize("photometric", ["rgb", "ycbcr"])
def test_aperio_s_ycbcr_in_jpeg_2000_is_shown_in_its_colours_without_its_description(tmp_path, photometric):
    pixels = tissue_like((600, 500))
    path, stored = tmp_path / "a.tif", np.asarray(Image.fromarray(pixels).convert("YCbCr"))
    about = {"photometric": "rgb", "tile": (128, 128), "compressionargs": {"mct": False}, "metadata": None}
    tifffile.imwrite(path, stored, compression=APERIO_JPEG_2000, **about)
    with tifffile.TiffFile(path, mode="r+") as tiff:
        tiff.pages[0].tags["Compression"].overwrite(APERIO_JPEG_2000_YCBCR)
        tiff.pages[0].tags["PhotometricInterpretation"].overwrite(tifffile.PHOTOMETRIC[photometric.upper()])
    assert np.abs(whole(open_source(path), (600, 500)) - pixels).max() <= 3


@pytest.mark.parametrize("kind", ["deep", "shallow", "grey"])
def test_a_reduced_page_of_samples_of_another_kind_is_no_level(tmp_path, kind):
    """Its values have another range, or it would lose the colours."""
    deep = tissue_like((600, 500)).astype(np.uint16) * 257
    base, level = (deep, deep // 257) if kind == "deep" else (deep // 257, deep)
    if kind == "grey":
        level = level[..., 1] // 257
    base, level = (pixels.astype(np.uint8) if pixels.max() < 256 else pixels for pixels in (base, level[::2, ::2]))
    with tifffile.TiffWriter(tmp_path / "a.tif") as tiff:
        for pixels in (base, np.ascontiguousarray(level)):
            photometric = "rgb" if pixels.ndim == 3 else "minisblack"
            tiff.write(pixels, photometric=photometric, tile=(128, 128), metadata=None)
    source = open_source(tmp_path / "a.tif")
    assert [level["width"] for level in source.details()["levels"]] == [600]
    assert np.abs(whole(source, (600, 500)) - deep // 257).max() == 0


@pytest.mark.parametrize("size_wh", [(512, 512), (450, 500)])
def test_a_level_of_another_shape_is_not_used(tmp_path, size_wh):
    """OpenSlide takes the mean of both ratios for its scale."""
    pixels, text = tissue_like((900, 700)), "Aperio Image Library v12.0.0\r\n900x700 (256x256) JPEG/RGB|MPP = 0.5"
    common = {"photometric": "rgb", "description": text, "metadata": None, "software": False}
    with tifffile.TiffWriter(tmp_path / "a.svs") as tiff:
        tiff.write(pixels, tile=(256, 256), **common)
        tiff.write(pixels[::8, ::8].copy(), rowsperstrip=16, **common)
        tiff.write(np.full((*size_wh[::-1], 3), RED, np.uint8), tile=(256, 256), **common)
        tiff.write(pixels[::4, ::4].copy(), tile=(256, 256), **common)
    source = open_source(tmp_path / "a.svs")
    assert [level["downsample"] for level in source.details()["levels"]] == [1, 4]
    assert np.array_equal(whole(source, (225, 175)), pixels[::4, ::4])
    told = f"a level of {size_wh[0]} x {size_wh[1]} px does not have the shape of the slide, and is not used"
    assert source.warnings == [told]


@pytest.mark.parametrize(
    ("properties", "mpp", "source"),
    [
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "0.5"}, (0.25, 0.5), "file"),
        ({"openslide.mpp-x": "0.25", "openslide.mpp-y": "nan"}, None, "none"),
        ({"openslide.mpp-x": "0.25"}, None, "none"),
        (
            {"openslide.mpp-x": "0", "openslide.mpp-y": "0", "openslide.objective-power": "40"},
            (0.25, 0.25),
            "objective",
        ),
        (
            {"tiff.XResolution": "20000", "tiff.YResolution": "40000", "tiff.ResolutionUnit": "centimeter"},
            (0.5, 0.25),
            "resolution",
        ),
        ({"tiff.XResolution": "72", "tiff.YResolution": "72", "tiff.ResolutionUnit": "inch"}, None, "none"),
        ({"tiff.XResolution": "1200", "tiff.YResolution": "1200", "tiff.ResolutionUnit": "inch"}, None, "none"),
        ({"openslide.objective-power": "x"}, None, "none"),
    ],
)
def test_the_scale_is_of_both_axes_and_says_where_it_comes_from(properties, mpp, source):
    found = scale_of(properties)
    assert (found.mpp and tuple(round(each, 6) for each in found.mpp), found.source) == (mpp, source)


def test_colours_are_converted_by_the_embedded_profile(tmp_path):
    pixels = np.full((400, 500, 3), (180, 90, 140), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=50, iccprofile=swapping_profile())
    tifffile.imwrite(tmp_path / "b.tif", pixels, photometric="rgb", rowsperstrip=50)
    plain, converted = (whole(open_source(tmp_path / name), (10, 10))[5, 5] for name in ("b.tif", "a.tif"))
    assert plain.tolist() == [180, 90, 140]
    assert np.abs(converted - [140, 90, 180]).max() <= 2
    assert dragonfly("info", tmp_path / "a.tif", "--json").json["colour_profile"] == "converted to sRGB"


@pytest.mark.parametrize("gamma", [1.0, 3.0])
def test_greys_are_converted_by_the_embedded_profile(tmp_path, gamma):
    grey = np.full((400, 500), 128, np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", grey, rowsperstrip=50, iccprofile=grey_profile(gamma))
    source = open_source(tmp_path / "a.tif")
    assert source.kind == "slide" and len(set(whole(source, (10, 10))[5, 5])) == 1
    assert abs(whole(source, (10, 10))[5, 5, 0] - 255 * (128 / 255) ** (gamma / 2.2)) <= 3


def test_a_profile_of_other_colours_is_told(tmp_path):
    """Colours through a profile of greys would all be grey."""
    pixels = np.full((400, 500, 3), (180, 90, 140), np.uint8)
    tifffile.imwrite(tmp_path / "a.tif", pixels, photometric="rgb", rowsperstrip=50, iccprofile=grey_profile(1.0))
    source = open_source(tmp_path / "a.tif")
    assert whole(source, (10, 10))[5, 5].tolist() == [180, 90, 140]
    assert any("the ICC profile in the file cannot be used" in warning for warning in source.warnings)


def test_a_slide_that_openslide_refuses_may_be_exported(tmp_path):
    """Of Zeiss CZI it reads bright field alone."""
    (tmp_path / "a.czi").write_bytes(b"ZISRAWFILE" + bytes(1000))
    outcome = dragonfly("info", tmp_path / "a.czi")
    expect_error(outcome, 4, "a.czi", "unsupported kind")
    assert "export it as OME-TIFF" in outcome.error_lines[1]


def test_a_scale_from_the_objective_is_said_to_be_one(tmp_path):
    path = write_svs(tmp_path / "a.svs", (300, 200), mpp=None, power=40, downsamples=())
    facts = dragonfly("info", path, "--json").json
    assert (facts["mpp"], facts["mpp_source"]) == ([0.25, 0.25], "objective")
    assert "objective power" in facts["warnings"][0]
