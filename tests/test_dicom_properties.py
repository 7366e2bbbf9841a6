"""Properties of the display over synthetic data sets, with pydicom's own functions as the oracle."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from make_files import save_dicom, write_dicom
from pydicom.pixels import apply_modality_lut, apply_voi_lut
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
)

from dragonfly_cli.geometry import Box
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.readers.dicom.choices import PRESETS, Window, parse_window
from dragonfly_cli.readers.dicom.display import GrayWay, LookupTable, Rescale

PLAIN = (ImplicitVRLittleEndian, ExplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
COMPRESSED = {RLELossless: "pydicom", JPEG2000Lossless: "pylibjpeg", JPEGLSLossless: "pyjpegls"}
few = settings(
    max_examples=60,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
)


@dataclass(frozen=True)
class Film:
    """One synthetic file: how its values are stored and how they are meant to be shown."""

    bits: int
    signed: bool
    syntax: str
    photometric: str
    slope: float
    intercept: float
    window: tuple[float, float]
    function: str
    seed: int

    @property
    def ends(self):
        return (-(2 ** (self.bits - 1)), 2 ** (self.bits - 1) - 1) if self.signed else (0, 2**self.bits - 1)

    def pixels(self):
        itemsize = 1 if self.bits <= 8 else 2 if self.bits <= 16 else 4
        low, high = self.ends
        values = np.random.default_rng(self.seed).integers(low, high + 1, (40, 48))
        return values.astype(f"{'i' if self.signed else 'u'}{itemsize}")

    def write(self, path):
        elements = {"RescaleSlope": self.slope, "RescaleIntercept": self.intercept, "VOILUTFunction": self.function}
        write_dicom(
            path,
            self.pixels(),
            photometric=self.photometric,
            bits_stored=self.bits,
            window=self.window,
            **elements,
        )
        dataset = pydicom.dcmread(path)
        if self.syntax in COMPRESSED:
            dataset.compress(self.syntax, encoding_plugin=COMPRESSED[self.syntax], generate_instance_uid=False)
            dataset.save_as(path)
            return path
        if self.syntax == ExplicitVRBigEndian:
            dataset.PixelData = self.pixels().astype(self.pixels().dtype.newbyteorder(">")).tobytes()
        return save_dicom(path, pydicom.Dataset(dataset), self.syntax)

    def expected(self, path):
        """pydicom's rendering, from 0 to 255."""
        dataset = pydicom.dcmread(path)
        values = apply_voi_lut(apply_modality_lut(dataset.pixel_array, dataset), dataset)
        low, high = sorted(end * self.slope + self.intercept for end in self.ends)
        level = (values - low) / (high - low)
        return 255 * (1 - level if self.photometric == "MONOCHROME1" else level)


@st.composite
def films(draw):
    syntax = draw(st.sampled_from((*PLAIN, *COMPRESSED)))
    bits = draw(st.integers(2, 16) if syntax in COMPRESSED else st.sampled_from((2, 7, 8, 10, 12, 15, 16, 20, 32)))
    slope = draw(st.sampled_from((1.0, 0.5, 2.0, 0.1171875)))
    low = draw(st.integers(-2000, 2000))
    return Film(
        bits=bits,
        signed=draw(st.booleans()),
        syntax=syntax,
        photometric=draw(st.sampled_from(("MONOCHROME1", "MONOCHROME2"))),
        slope=slope,
        intercept=draw(st.sampled_from((0.0, -1024.0, 0.25))),
        window=(float(low), float(draw(st.integers(2, 5000)))),
        function=draw(st.sampled_from(("LINEAR", "LINEAR_EXACT", "SIGMOID"))),
        seed=draw(st.integers(0, 2**20)),
    )


def shown(path, options=OpenOptions()):  # noqa: B008 - frozen
    source = open_source(path, options)
    return np.asarray(source.view(Box(0, 0, *source.size_wh)))[..., 0].astype(int)


@few
@given(films())
@pytest.mark.filterwarnings("ignore::RuntimeWarning", "ignore::UserWarning")
def test_every_way_of_storing_and_showing_grey(tmp_path: Path, film: Film):
    path = film.write(tmp_path / "film.dcm")
    assert np.abs(shown(path) - film.expected(path)).max() <= 1


@few
@given(st.integers(-3000, 3000), st.integers(16, 4000), st.integers(-1024, 3071))
def test_a_window_of_the_user_maps_its_edges_to_black_and_white(tmp_path, level, width, value):
    """PS3.3 C.11.2.1.2, with the numbers of --window WIDTH,LEVEL; the file's own window has no say."""
    pixels = np.full((2, 2), value + 1024, np.uint16)
    rescale = {"RescaleSlope": 1, "RescaleIntercept": -1024, "Modality": "CT"}
    path = write_dicom(tmp_path / "ct", pixels, bits_stored=12, window=(1, 2), **rescale)
    expected = np.clip((value - (level - 0.5)) / (width - 1) + 0.5, 0, 1) * 255
    assert abs(shown(path, OpenOptions(window=f"{width},{level}"))[0, 0] - expected) <= 1


@given(st.sampled_from((np.uint8, np.int8, np.uint16, np.int16)), st.booleans(), st.floats(-5, 5), st.integers(0, 99))
@few
def test_looking_up_is_the_same_as_computing(dtype, is_inverted, slope, seed):
    """Large frames go through a table of all values, small ones do not."""
    assume(abs(slope) > 1e-3)
    info = np.iinfo(dtype)
    values = np.random.default_rng(seed).integers(info.min, info.max + 1, 2**17).astype(dtype)
    way = GrayWay(Rescale(slope, -7), Window(20, 300), is_inverted, (3, 9))
    looked_up = way.levels(values)
    assert np.array_equal(looked_up[:200], way.levels(values[:200]))
    assert (looked_up[(values >= 3) & (values <= 9)] == 0).all()


@few
@given(st.integers(-300, 300), st.lists(st.integers(0, 4095), min_size=1, max_size=64), st.integers(-400, 400))
def test_a_table_answers_with_its_ends_outside_itself(first, entries, value):
    table = LookupTable(first, 12, np.array(entries))
    index = min(max(value - first, 0), len(entries) - 1)
    assert table.apply(np.array([float(value)])).tolist() == [entries[index]]


@few
@given(st.floats(1e-6, 1e6), st.floats(-1e6, 1e6))
def test_a_window_is_read_as_width_then_level(width, level):
    (window,) = parse_window(f"{width!r},{level!r}").windows
    assert (window.width, window.center, window.origin) == (width, level, "option")


def test_presets_are_those_of_a_reading_room():
    assert (PRESETS["lung"].center, PRESETS["lung"].width) == (-600, 1500)
    assert (PRESETS["brain"].center, PRESETS["brain"].width) == (40, 80)
    assert PRESETS["bone"].width > PRESETS["soft"].width > PRESETS["liver"].width > PRESETS["stroke"].width
