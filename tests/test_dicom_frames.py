"""Several frames in one DICOM file: their order in the body, their scale, and what is odd about them."""

from pathlib import Path

import numpy as np
import pydicom
from make_files import write_dicom
from make_series import AXIAL, SAGITTAL, heights
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from run_dragonfly import dragonfly

from dragonfly_cli.readers import open_source


def grouped(height: float, tilt: float = 0.0) -> Dataset:
    """The functional groups that say where a frame lies."""
    position, orientation, groups = Dataset(), Dataset(), Dataset()
    position.ImagePositionPatient = [0, 0, height]
    orientation.ImageOrientationPatient = [1, tilt, 0, 0, 1, 0]
    groups.PlanePositionSequence = Sequence([position])
    groups.PlaneOrientationSequence = Sequence([orientation])
    return groups


def test_files_of_one_enhanced_frame_lie_where_their_groups_say(tmp_path: Path) -> None:
    """Instance numbers run against the body here, as they do in half of all studies."""
    (tmp_path / "study").mkdir()
    for height in range(0, 100, 20):
        pixels = np.full((1, 32, 48), height, np.uint16)
        facts = {"SeriesInstanceUID": "1.2.3", "InstanceNumber": 100 - height, "SOPInstanceUID": f"1.2.3.{height}"}
        groups = {"PerFrameFunctionalGroupsSequence": Sequence([grouped(height)])}
        write_dicom(tmp_path / "study" / f"{height}", pixels, window=(50.5, 101), **facts, **groups)
    source = open_source(tmp_path / "study")
    assert heights(source) == [0, 20, 40, 60, 80]
    assert source.warnings == [] and source.details()["spacing_mm"] is None


def test_frames_whose_directions_differ_by_rounding_are_one_stack(tmp_path: Path) -> None:
    places = (30, 1e-6), (10, 0.0), (20, -1e-6)
    pixels = np.stack([np.full((32, 48), height, np.uint16) for height, _ in places])
    groups = {"PerFrameFunctionalGroupsSequence": Sequence([grouped(*place) for place in places])}
    source = open_source(write_dicom(tmp_path / "a", pixels, window=(50.5, 101), **groups))
    assert list(source.slices) == [1, 2, 0]


def frames_at(path: Path, *groups: Dataset) -> Path:
    pixels = np.stack([np.full((32, 48), 10 * number, np.uint16) for number in range(len(groups))])
    sequence = {"PerFrameFunctionalGroupsSequence": Sequence(groups), "SeriesInstanceUID": "1.2.3"}
    return write_dicom(path, pixels, window=(50.5, 101), **sequence)


def measured(groups: Dataset, spacing: float) -> Dataset:
    groups.PixelMeasuresSequence = Sequence([Dataset()])
    groups.PixelMeasuresSequence[0].PixelSpacing = [spacing, spacing]
    return groups


def test_what_is_odd_about_the_frames_of_one_file_is_told(tmp_path: Path) -> None:
    """As it is of a folder: gaps, places that are shared, and several stacks, whose order and scale nobody knows."""
    gap = open_source(frames_at(tmp_path / "a", *map(grouped, (3, 1, 2, 9, 0))))
    assert list(gap.slices) == [4, 1, 2, 0, 3] and "1 gap" in gap.warnings[0]
    shared = open_source(frames_at(tmp_path / "b", *map(grouped, (1, 1, 0))))
    assert list(shared.slices) == [2, 0, 1] and "1 of 3 slices lie where another" in shared.warnings[0]
    scales = [measured(grouped(-number), 1 + number // 2) for number in range(4)]
    several = open_source(frames_at(tmp_path / "c", *scales))
    assert list(several.slices) == [0, 1, 2, 3] and "direction or spacing" in several.warnings[0]
    assert several.mpp is None


def test_frames_of_different_pixel_shapes_in_one_file_are_told(tmp_path: Path) -> None:
    axial, coronal = measured(grouped(1), 1), measured(grouped(2), 1)
    coronal.PixelMeasuresSequence[0].PixelSpacing = [3, 1]
    source = open_source(frames_at(tmp_path / "a", axial, coronal))
    assert "differ in shape" in source.warnings[-1] and source.mpp is None
    assert not any("shape" in each for each in open_source(frames_at(tmp_path / "b", axial, axial)).warnings)


def test_the_stack_that_is_looked_at_has_its_own_scale(tmp_path: Path) -> None:
    """It begins at the second frame here; the first one is a scout of another scale and direction."""
    scout = measured(grouped(0), 4)
    scout.PlaneOrientationSequence[0].ImageOrientationPatient = SAGITTAL
    (tmp_path / "study").mkdir()
    frames_at(tmp_path / "study" / "a", scout, measured(grouped(2), 1), measured(grouped(1), 1))
    source = open_source(tmp_path / "study")
    assert (heights(source), source.mpp) == ([20, 10], (1000.0, 1000.0))
    assert (source.details()["orientation"], source.details()["spacing_mm"]) == ("axial", [1, 1, 1])


def test_frames_that_the_header_does_not_describe_are_told(tmp_path: Path) -> None:
    path = frames_at(tmp_path / "a", *map(grouped, (0, 1, 2)))
    dataset = pydicom.dcmread(path)
    dataset.PerFrameFunctionalGroupsSequence = Sequence(list(dataset.PerFrameFunctionalGroupsSequence)[:2])
    dataset.save_as(path)
    assert "describes 2 frames, of 3" in open_source(path).warnings[0]


def test_frames_of_one_file_have_positions_of_their_own(tmp_path: Path) -> None:
    """An enhanced CT stored from head to foot: frames keep their numbers, slices are counted in space."""
    groups = []
    for height in (100, 50, 0):
        groups.append(Dataset())
        groups[-1].PlanePositionSequence = Sequence([Dataset()])
        groups[-1].PlanePositionSequence[0].ImagePositionPatient = [0, 0, height]
    shared = Dataset()
    shared.PlaneOrientationSequence = Sequence([Dataset()])
    shared.PlaneOrientationSequence[0].ImageOrientationPatient = AXIAL
    shared.PixelMeasuresSequence = Sequence([Dataset()])
    shared.PixelMeasuresSequence[0].PixelSpacing = [1, 1]
    (tmp_path / "study").mkdir()
    path = write_dicom(
        tmp_path / "study" / "enhanced",
        np.stack([np.full((32, 48), value, np.int16) for value in (100, 50, 0)]),
        window=(50.5, 101),
        PerFrameFunctionalGroupsSequence=Sequence(groups),
        SharedFunctionalGroupsSequence=Sequence([shared]),
        SeriesInstanceUID="1.2.3",
    )
    assert heights(open_source(path)) == [100, 50, 0]
    assert list(open_source(path).slices) == [2, 1, 0]
    assert heights(open_source(tmp_path / "study")) == [0, 50, 100]
    record = dragonfly("ask", path, "Is it?", "--slice", "0", "--json").json
    assert [field["frame"] for field in record["fields"]] == [2]
