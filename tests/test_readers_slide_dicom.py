"""DICOM slides: from a folder, one of its files or a zip, through OpenSlide or wsidicom, with the same pixels."""

import io
import os
import zipfile
from pathlib import Path

import numpy as np
import pytest
from make_files import swapping_profile, write_dicom_slide
from PIL import Image
from pydicom import dcmread
from pydicom.dataset import Dataset
from pydicom.encaps import encapsulate, encapsulate_extended
from pydicom.uid import JPEGBaseline8Bit, RLELossless
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.inputs import list_inputs, zipped_copies

SERIES = "1.2.826.0.1.3680043.8.498.1"
CORNERS = (200, 10, 10), (10, 200, 10), (10, 10, 200), (230, 230, 230)


def whole(source, size):
    return np.asarray(source.view(Box(0, 0, *source.size_wh)).resize(size)).astype(int)


@pytest.fixture
def dicom_slide(tmp_path):
    """A folder with two levels, 256 and 64 pixels a side: red left, blue right."""
    folder = tmp_path / "case"
    folder.mkdir()
    series = "1.2.826.0.1.3680043.8.498.1"
    for number, side in enumerate((256, 64)):
        pixels = np.zeros((side, side, 3), np.uint8)
        pixels[:, : side // 2, 0] = pixels[:, side // 2 :, 2] = 200
        write_dicom_slide(folder / f"level{number}.dcm", pixels, series, number)
    (folder / "readme.txt").write_text("nothing")
    return folder


def test_a_dicom_slide_opens_from_its_folder_and_from_any_of_its_files(dicom_slide):
    for path in (dicom_slide, dicom_slide / "level0.dcm", dicom_slide / "level1.dcm"):
        source = open_source(path)
        assert (source.kind, source.size_wh, source.mpp) == ("slide", (256, 256), (0.5, 0.5))
        assert len(source.details()["levels"]) == 2
        assert source.details()["quickhash"] is None  # it would be a hash of the series UID, and of nothing else
        assert whole(source, (64, 64))[0, 0].tolist() == [200, 0, 0]
        source.close()


def test_a_dicom_slide_opens_from_a_zip_of_which_nothing_is_unpacked(dicom_slide, tmp_path):
    with zipfile.ZipFile(tmp_path / "case.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        for file in dicom_slide.iterdir():
            archive.write(file, f"case/{file.name}")
    source = open_source(tmp_path / "case.zip")
    assert (source.kind, source.size_wh) == ("slide", (256, 256))
    assert source.mpp == pytest.approx((0.5, 0.5))
    seen = whole(source, (64, 64))
    assert seen[0, 0].tolist() == [200, 0, 0] and seen[63, 63].tolist() == [0, 0, 200]
    assert len(list(tmp_path.iterdir())) == 2


def test_a_slide_is_never_shown_in_place_of_another_in_its_folder(dicom_slide):
    """OpenSlide refuses RLE, and wsidicom would take the first slide of all files that it is given."""
    other = write_dicom_slide(dicom_slide / "other.dcm", np.full((96, 96, 3), 120, np.uint8), "1.2.3.4", 0)
    dataset = dcmread(other)
    dataset.compress(RLELossless)
    dataset.save_as(other)
    source = open_source(other)
    assert source.size_wh == (96, 96) and (whole(source, (8, 8)) == 120).all()
    assert [Path(each.name).name for each in list_inputs(dicom_slide)] == ["level0.dcm", "other.dcm"]


def test_the_files_of_a_slide_are_those_of_its_series_alone(dicom_slide):
    """Also where the name of another series begins with that of its own, or stands behind much else."""
    write_dicom_slide(dicom_slide / "other.dcm", quarters(), SERIES + "1", 0)
    late = dcmread(dicom_slide / "level1.dcm")
    late.DerivationDescription = "x" * 9000
    late.save_as(dicom_slide / "level1.dcm")
    source = open_source(dicom_slide / "level0.dcm")
    assert [file.name for file in source.files] == ["level0.dcm", "level1.dcm"]


def test_a_label_of_a_series_of_its_own_is_no_slide(dicom_slide):
    label = write_dicom_slide(dicom_slide / "a-label.dcm", np.full((64, 64, 3), 120, np.uint8), "1.2.3.4", 0)
    dataset = dcmread(label)
    dataset.ImageType = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"]
    dataset.save_as(label)
    expect_error(dragonfly("info", label), 4, "a-label.dcm", "label")
    assert [Path(each.name).name for each in list_inputs(dicom_slide)] == ["level0.dcm"]
    assert open_source(dicom_slide).size_wh == (256, 256)  # though the label comes first
    del dataset.ImageType  # what does not say what it is stays
    dataset.save_as(label)
    assert len(list_inputs(dicom_slide)) == 2


def test_a_slide_that_names_its_kind_in_its_file_meta_alone_counts_as_read(dicom_slide):
    level = dcmread(dicom_slide / "level0.dcm")
    del level.SOPClassUID
    level.save_as(dicom_slide / "level0.dcm")
    source = open_source(dicom_slide)
    assert (source.size_wh, source.warnings) == ((256, 256), [])


def test_a_folder_run_takes_a_dicom_slide_once(dicom_slide):
    (first,) = list_inputs(dicom_slide)
    assert first.name == str(dicom_slide / "level0.dcm")
    assert first.open(OpenOptions()).size_wh == (256, 256)


def test_a_zip_of_a_slide_that_lies_unpacked_too_is_known_as_a_copy(dicom_slide, tmp_path):
    with zipfile.ZipFile(tmp_path / "case.zip", "w") as archive:
        for file in dicom_slide.iterdir():
            archive.write(file, f"case/{file.name}")
    assert zipped_copies(list_inputs(tmp_path)) == {tmp_path / "case.zip"}
    (dicom_slide / "level1.dcm").rename(tmp_path / "level1.dcm")
    assert zipped_copies(list_inputs(tmp_path)) == {tmp_path / "case.zip"}  # wherever it is now
    (tmp_path / "level1.dcm").unlink()
    assert zipped_copies(list_inputs(tmp_path)) == set()


def test_a_pipe_beside_a_slide_is_told_and_not_waited_for(dicom_slide):
    os.mkfifo(dicom_slide / "pipe")
    for named in (dicom_slide, dicom_slide / "level0.dcm"):
        expect_error(dragonfly("info", named), 4, str(dicom_slide), "a pipe or a device lies there")


def test_a_zip_without_a_slide_is_told(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr("readme.txt", "nothing")
    expect_error(dragonfly("info", tmp_path / "a.zip"), 4, "a.zip")


def quarters(side=128):
    """A picture whose quarters have the colours of ``CORNERS``."""
    small = np.array(CORNERS, np.uint8).reshape(2, 2, 3)
    return small.repeat(side // 2, axis=0).repeat(side // 2, axis=1)


def write_changed(path, change, pixels=None):
    """A slide of one level, after ``change`` of its data set."""
    data = dcmread(write_dicom_slide(path, quarters() if pixels is None else pixels, SERIES, 0))
    change(data)
    data.save_as(path)
    return path


def zipped(folder: Path) -> Path:
    path = folder.with_suffix(".zip")
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for file in sorted(folder.iterdir()):
            archive.write(file, f"case/{file.name}")
    return path


def seen_corners(path: Path, picture: Path) -> list[list[int]]:
    """The colours that a user sees in the corners."""
    outcome = dragonfly("view", path, "--what", "display", "-o", picture)
    assert outcome.code == 0, outcome.stderr
    pixels = np.asarray(Image.open(picture))
    return [pixels[y, x].tolist() for y in (0, -1) for x in (0, -1)]


@pytest.fixture
def case(tmp_path):
    folder = tmp_path / "case"
    folder.mkdir()
    return folder


@pytest.mark.parametrize("bits", [8, 16])
def test_a_grey_slide_that_openslide_refuses_looks_the_same_from_a_folder_and_a_zip(case, tmp_path, bits):
    grey = quarters()[..., 0]

    def to_grey(data):
        data.SamplesPerPixel, data.PhotometricInterpretation = 1, "MONOCHROME2"
        del data.PlanarConfiguration
        dtype = np.uint8 if bits == 8 else np.uint16
        data.BitsAllocated, data.BitsStored, data.HighBit = 8 * dtype().itemsize, bits, bits - 1
        largest = 2**bits - 1
        data.PixelData = np.ceil(grey.astype(float) * largest / 255).astype(dtype).tobytes()

    write_changed(case / "a.dcm", to_grey)
    expected = [[corner[0]] * 3 for corner in CORNERS]
    for path in (case, zipped(case)):
        assert seen_corners(path, tmp_path / "seen.png") == expected


def test_colours_are_converted_from_a_zip_as_from_a_folder(case, tmp_path):
    profile = swapping_profile()

    def add(data):
        data.OpticalPathSequence[0].ICCProfile = profile + b"\0" * (len(profile) % 2)

    write_changed(case / "a.dcm", add)
    for path in (case, zipped(case)):
        for seen, corner in zip(seen_corners(path, tmp_path / "seen.png"), CORNERS, strict=True):
            assert seen == pytest.approx(corner[::-1], abs=2)


def test_one_slide_of_two_is_never_shown_without_a_word(case, tmp_path):
    write_dicom_slide(case / "a.dcm", quarters(), SERIES, 0)
    write_dicom_slide(case / "b.dcm", quarters()[::-1], SERIES + ".9", 1)
    for path in (case, zipped(case)):
        (warning,) = dragonfly("info", path, "--json").json["warnings"]
        assert warning.startswith("only one of 2 DICOM slides in it is shown")
    assert dragonfly("info", case / "b.dcm", "--json").json["warnings"] == []
    assert seen_corners(case / "b.dcm", tmp_path / "seen.png")[0] == list(CORNERS[2])


def test_a_label_is_no_slide_and_is_not_shown(case, tmp_path):
    write_dicom_slide(case / "b.dcm", quarters(), SERIES, 0)
    label = dcmread(write_dicom_slide(case / "a.dcm", np.full((60, 90, 3), 77, np.uint8), SERIES, 1))
    label.ImageType, label.SpecimenLabelInImage = ["ORIGINAL", "PRIMARY", "LABEL", "NONE"], "YES"
    label.save_as(case / "a.dcm")
    for path in (case, case / "a.dcm", zipped(case)):
        assert dragonfly("info", path, "--json").json["warnings"] == []
        assert seen_corners(path, tmp_path / "seen.png") == list(map(list, CORNERS))


def test_focal_planes_and_optical_paths_that_are_not_shown_are_told(case):
    def with_planes(data):
        data.NumberOfFrames = data.TotalPixelMatrixFocalPlanes = 2
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 0.001
        data.PixelData = quarters().tobytes() * 2

    def with_paths(data):
        data.NumberOfFrames = data.NumberOfOpticalPaths = 2
        other = Dataset()
        other.OpticalPathIdentifier = "1"
        data.OpticalPathSequence.append(other)
        data.PixelData = quarters().tobytes() * 2

    for change in (with_planes, with_paths):
        write_changed(case / "a.dcm", change)
        for path in (case, zipped(case)):
            assert any("only one of 2 channels, focal planes" in line for line in open_source(path).warnings)


def tile_up(data, *pictures, side=64, sparse=False):
    """Put pictures of one size, [height, width, 3], into a data set as tiles, one picture after the other."""
    height, width = pictures[0].shape[:2]
    places = [(row, column) for row in range(0, height, side) for column in range(0, width, side)]
    tiles = []
    for picture in pictures:
        padded = np.pad(picture, ((0, -height % side), (0, -width % side), (0, 0)))
        tiles += [padded[row : row + side, column : column + side].tobytes() for row, column in places]
    data.Rows = data.Columns = side
    data.TotalPixelMatrixRows, data.TotalPixelMatrixColumns = height, width
    data.ImagedVolumeHeight, data.ImagedVolumeWidth = 0.0005 * height, 0.0005 * width
    data.NumberOfFrames, data.PixelData = len(tiles), b"".join(tiles)
    if sparse:
        data.DimensionOrganizationType = "TILED_SPARSE"
        data.PerFrameFunctionalGroupsSequence = [
            placed_frame(row, column, plane) for plane in range(len(pictures)) for row, column in places
        ]


def placed_frame(row, column, plane):
    """What a sparsely tiled slide says of one frame; each focal plane lies a micron above the last."""
    place, path, frame = Dataset(), Dataset(), Dataset()
    place.ColumnPositionInTotalImagePixelMatrix, place.RowPositionInTotalImagePixelMatrix = column + 1, row + 1
    place.XOffsetInSlideCoordinateSystem = place.YOffsetInSlideCoordinateSystem = 0
    place.ZOffsetInSlideCoordinateSystem = 0.001 * plane
    path.OpticalPathIdentifier = "0"
    frame.PlanePositionSlideSequence, frame.OpticalPathIdentificationSequence = [place], [path]
    return frame


def coded(width, height):
    """Every place has a colour of its own."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x % 256, y % 256, x // 256 * 16 + y // 256], axis=-1).astype(np.uint8)


def test_every_tile_of_a_zipped_slide_is_at_its_place_however_many_threads_read_it(case):
    pixels = coded(2100, 2000)
    write_changed(case / "a.dcm", lambda data: tile_up(data, pixels))
    path = zipped(case)
    for _ in range(3):
        assert (whole(open_source(path), (2100, 2000)) == pixels).all()


@pytest.mark.parametrize("told", [True, False])
def test_of_several_focal_planes_that_are_sparsely_tiled_the_first_is_shown_and_the_others_told(case, told):
    """The count of planes may be left out of such files, and OpenSlide shows the last of them."""
    first = coded(200, 150)

    def change(data):
        tile_up(data, first, 255 - first, sparse=True)
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].SpacingBetweenSlices = 0.001
        data.TotalPixelMatrixFocalPlanes = 2
        if not told:
            del data.TotalPixelMatrixFocalPlanes, data.NumberOfOpticalPaths

    write_changed(case / "a.dcm", change)
    for path in (case, zipped(case)):
        source = open_source(path)
        assert (whole(source, (200, 150)) == first).all()
        assert any("only one of 2 channels, focal planes" in line for line in source.warnings)


def test_of_two_optical_paths_the_first_is_shown(case):
    def with_paths(data):
        data.NumberOfFrames = data.NumberOfOpticalPaths = 2
        other = Dataset()
        other.OpticalPathIdentifier = "1"
        data.OpticalPathSequence.append(other)
        data.PixelData = quarters().tobytes() + (255 - quarters()).tobytes()

    write_changed(case / "a.dcm", with_paths)
    for path in (case, zipped(case)):
        assert (whole(open_source(path), (128, 128)) == quarters()).all()


def test_levels_that_are_not_powers_of_two_apart_are_shown_from_a_folder_and_told_of_a_zip(case):
    for number, side in enumerate((192, 64)):
        level = dcmread(write_dicom_slide(case / f"{number}.dcm", quarters(side), SERIES, number))
        tile_up(level, quarters(side))
        level.save_as(case / f"{number}.dcm")
    assert open_source(case).downsamples == (1.0, 3.0)
    refused = dragonfly("info", zipped(case))
    expect_error(refused, 4, "the levels of the DICOM slide are not powers of two apart")
    assert "hint: unpack the zip" in refused.stderr


def test_pixels_that_are_not_square_have_their_height_from_the_first_spacing(case):
    def stretch(data):
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.001, 0.0005]  # rows first
        data.ImagedVolumeWidth, data.ImagedVolumeHeight = 0.064, 0.128

    write_changed(case / "a.dcm", stretch)
    for path in (case, zipped(case)):
        assert open_source(path).mpp == pytest.approx((0.5, 1.0))


def spaced(*millimetres):
    def change(data):
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = list(millimetres)

    return change


def test_a_scale_that_no_slide_has_is_not_believed_from_a_zip_as_from_a_folder(case):
    """Microns where millimetres are meant."""
    write_changed(case / "a.dcm", spaced(0.5, 0.5))
    for path in (case, zipped(case)):
        facts = dragonfly("info", path, "--json").json
        assert (facts["mpp"], facts["mpp_source"]) == (None, "none")
        assert facts["warnings"] == ["the slide does not give its microns per pixel: sizes are in pixels only"]


def test_a_slide_without_the_size_of_its_pixels_opens_from_a_folder_and_a_zip_of_it_says_so(case, tmp_path):
    write_changed(case / "a.dcm", spaced(0, 0))
    assert seen_corners(case, tmp_path / "seen.png") == list(map(list, CORNERS))
    outcome = dragonfly("info", zipped(case))
    expect_error(outcome, 4, "case.zip", "does not give the size of its pixels")
    assert "unpack the zip" in outcome.error_lines[1]


def test_a_damaged_slide_header_does_not_end_the_run_of_a_folder(tmp_path):
    slide = write_dicom_slide(tmp_path / "good.dcm", np.zeros((64, 64, 3), np.uint8), "1.2.3", 1)
    damaged = slide.read_bytes().replace(b"\x20\x00\x0e\x00UI", b"\x20\x00\x0e\x00U\x93")
    assert damaged != slide.read_bytes()
    (tmp_path / "bad.dcm").write_bytes(damaged)
    assert [Path(each.name).name for each in list_inputs(tmp_path)] == ["bad.dcm", "good.dcm"]


@pytest.mark.parametrize("cut_to", [0, 100, 200, 700])
def test_a_level_that_cannot_be_read_is_told_where_a_coarser_one_is_shown_in_its_place(dicom_slide, cut_to):
    finest = dicom_slide / "level0.dcm"
    finest.write_bytes(finest.read_bytes()[:cut_to])
    for path in (dicom_slide, zipped(dicom_slide)):
        source = open_source(path)
        assert source.size_wh == (64, 64)
        assert source.warnings == ["1 of 2 files could not be read and were left out: number 1 by name"]


@pytest.mark.parametrize("damaged", [swapping_profile()[:200], bytes(500)])
def test_a_damaged_profile_is_told_of_a_folder_as_of_a_zip(case, damaged):
    write_changed(case / "a.dcm", lambda data: setattr(data.OpticalPathSequence[0], "ICCProfile", damaged))
    for path in (case, zipped(case)):
        (warning,) = open_source(path).warnings
        assert warning.startswith("the ICC profile in the file cannot be used")


def tiled_as(organization):
    def change(data):
        tile_up(data, coded(200, 150))
        data.DimensionOrganizationType = organization

    return change


def of_frame(number, name, value):
    """A change of where a frame of a sparsely tiled slide lies; without a value it is nowhere."""

    def change(data):
        tile_up(data, coded(200, 150), sparse=True)
        frame = data.PerFrameFunctionalGroupsSequence[number]
        if value is None:
            del frame[name]
        else:
            setattr(frame.PlanePositionSlideSequence[0], name, value)

    return change


@pytest.mark.parametrize(
    "change",
    [
        tiled_as(None),
        tiled_as(""),
        of_frame(0, "RowPositionInTotalImagePixelMatrix", 0),
    ],
)
def test_a_zip_whose_slide_does_not_say_where_its_tiles_lie_is_refused(case, change):
    write_changed(case / "a.dcm", change)
    expect_error(dragonfly("info", zipped(case)), 4, "case.zip", "no DICOM whole slide that can be read")


def test_a_profile_is_used_whatever_else_of_a_zipped_slide_is_odd(case):
    profile = swapping_profile()

    def add(data):
        data.SpecimenDescriptionSequence = [Dataset()]
        data.OpticalPathSequence[0].ICCProfile = profile + b"\0" * (len(profile) % 2)

    write_changed(case / "a.dcm", add)
    assert open_source(zipped(case)).details()["colour_profile"] == "converted to sRGB"


def photograph(width=256, height=192):
    """Of many soft colours, so that JPEG changes little of it."""
    y, x = np.mgrid[:height, :width]
    return np.stack([x * 255 // width, y * 255 // height, 128 + 100 * np.sin(x / 20)], axis=-1).astype(np.uint8)


def jpeg_tiles(picture, side=64, **how):
    """The tiles of a picture as JPEG streams, as Pillow writes them."""
    streams = []
    for row in range(0, picture.shape[0], side):
        for column in range(0, picture.shape[1], side):
            stream = io.BytesIO()
            Image.fromarray(picture[row : row + side, column : column + side]).save(stream, "JPEG", quality=95, **how)
            streams.append(stream.getvalue())
    return streams


def write_jpeg_slide(path, photometric="YBR_FULL_422", store=encapsulate, picture=None, **how):
    """A slide of JPEG tiles; ``store`` makes its pixel data of their streams."""
    picture = photograph() if picture is None else picture

    def change(data):
        tile_up(data, picture)
        data.SharedFunctionalGroupsSequence[0].PixelMeasuresSequence[0].PixelSpacing = [0.0005, 0.0005]
        data.file_meta.TransferSyntaxUID, data.PhotometricInterpretation = JPEGBaseline8Bit, photometric
        stored = store(jpeg_tiles(picture, **how))
        if isinstance(stored, tuple):
            stored, data.ExtendedOffsetTable, data.ExtendedOffsetTableLengths = stored
        data.PixelData = stored
        data["PixelData"].VR = "OB"

    write_changed(path, change, picture)
    return picture


@pytest.mark.parametrize(
    ("photometric", "how"),
    [
        ("RGB", {}),  # Pillow's mark says YCbCr
        ("RGB", {"keep_rgb": True}),
        ("YBR_FULL_422", {"keep_rgb": True}),
        ("YBR_FULL_422", {}),
    ],
)
def test_jpeg_tiles_have_the_colours_that_they_say_themselves(case, photometric, how):
    picture = write_jpeg_slide(case / "a.dcm", photometric, **how)
    for path in (case, zipped(case)):
        assert np.abs(whole(open_source(path), (256, 192)) - picture).mean() < 2


def with_basic_table(*entries):
    def store(streams):
        table = b"".join(entry.to_bytes(4, "little") for entry in entries)
        stored = encapsulate(streams)
        return stored[:8] + table + stored[8 + len(table) :]

    return store


def with_extended_table_of_zeros(streams):
    stored, table, lengths = encapsulate_extended(streams)
    return stored, bytes(len(table)), lengths


@pytest.mark.parametrize(
    "store",
    [with_basic_table(0, 0, 0), with_basic_table(0, 50), with_basic_table(0, 10**8), with_extended_table_of_zeros],
)
def test_a_slide_that_is_wrong_about_where_its_tiles_begin_is_refused(case, store):
    """By such a table OpenSlide reads where nothing is, which ends the whole program."""
    write_jpeg_slide(case / "a.dcm", store=store)
    for path in (case, zipped(case)):
        expect_error(dragonfly("info", path), 4, "wrong about where in the file its tiles lie")


def test_tiles_in_several_fragments_are_shown_where_openslide_can_and_are_told_elsewhere(case):
    picture = write_jpeg_slide(case / "a.dcm", store=lambda streams: encapsulate(streams, fragments_per_frame=2))
    assert np.abs(whole(open_source(case), (256, 192)) - picture).mean() < 2
    refused = dragonfly("info", zipped(case))
    expect_error(refused, 4, "in several fragments each, which is not supported")
    assert "unpack the zip" in refused.error_lines[1]
    write_jpeg_slide(case / "a.dcm", store=lambda streams: encapsulate(streams, fragments_per_frame=2, has_bot=False))
    for path in (case, zipped(case)):
        expect_error(dragonfly("info", path), 4, "in several fragments each, which is not supported")


def wider_than_its_tiles(data):
    tile_up(data, photograph())
    data.TotalPixelMatrixColumns = 320


@pytest.mark.parametrize("change", [wider_than_its_tiles, of_frame(3, "PlanePositionSlideSequence", None)])
def test_a_folder_whose_slide_does_not_say_where_its_tiles_lie_is_refused_as_a_zip_is(case, change):
    write_changed(case / "a.dcm", change)
    for path in (case, zipped(case)):
        expect_error(dragonfly("info", path), 4, "no DICOM whole slide that can be read")


@pytest.mark.parametrize("has_table", [True, False])
def test_a_jpeg_tile_that_has_lost_a_block_is_white_and_told(case, has_table):
    def store(streams):
        half, block = len(streams[5]) // 2, 512
        streams[5] = streams[5][:half] + bytes(block) + streams[5][half + block :]
        return encapsulate(streams, has_bot=has_table)

    grainy = np.random.default_rng(0).integers(90, 160, (192, 256, 3), np.uint8)
    write_jpeg_slide(case / "a.dcm", store=store, picture=grainy)
    for path in (case, zipped(case)):
        source = open_source(path)
        assert (whole(source, (256, 192))[64:128, 64:128] == 255).all()
        assert source.warnings == [
            "these tiles of the slide are shown white, because they are damaged: level 0, column 1, row 1"
        ]


def test_another_slide_in_a_zip_may_be_wrong_about_its_tiles(case):
    write_dicom_slide(case / "a.dcm", quarters(512), SERIES, 0)
    write_jpeg_slide(case / "b.dcm", store=with_extended_table_of_zeros)
    other = dcmread(case / "b.dcm")
    other.SeriesInstanceUID = SERIES + ".9"
    other.save_as(case / "b.dcm")
    assert open_source(zipped(case)).size_wh == (512, 512)
