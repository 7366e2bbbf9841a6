"""Our display image against independent renderings: pydicom's own functions, and DCMTK's dcm2pnm where it is installed.

On real files: those that pydicom brings along, and more beside the checkout where there are any.
"""

import logging
import shutil
import subprocess
import warnings
from functools import cache
from pathlib import Path

import numpy as np
import pydicom
import pytest
from make_files import SHARED_DATA
from PIL import Image
from pydicom.dataset import FileMetaDataset
from pydicom.pixels import apply_color_lut, apply_modality_lut, apply_voi_lut
from pydicom.uid import JPEGBaseline8Bit

from dragonfly_cli.errors import InputError
from dragonfly_cli.geometry import Box
from dragonfly_cli.readers import open_source

PYDICOM_FILES = Path(pydicom.__file__).parent / "data" / "test_files"
CT_CENTER, CT_WIDTH = 40, 400
LOSSY = ("JPEG Baseline (Process 1)", "JPEG Extended (Process 2 and 4)")
# A colour JPEG whose header calls its YCbCr RGB: pydicom believes the header, we believe the stream.
NATURAL = {"SC_rgb_jpeg.dcm"}
DCMTK_TOOLS = ("dcm2pnm", "dcmj2pnm", "dcml2pnm")


def files():
    shared = SHARED_DATA / "dicom"
    found = [path for path in PYDICOM_FILES.glob("*") if path.suffix == ".dcm"]
    found += [path for path in shared.iterdir() if path.suffix != ".csv"] if shared.exists() else []
    return sorted(found)


@cache
def ours(path):
    """The display of the first frame and what is said of it, or None for a file that is refused."""
    try:
        source = open_source(path)
        return np.asarray(source.view(Box(0, 0, *source.size_wh))).astype(int), source.details()
    except InputError:
        return None


@pytest.fixture(autouse=True)
def quiet():
    """Real files are odd, and pydicom says so; that is not what is tested."""
    logging.disable(logging.CRITICAL)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
    logging.disable(logging.NOTSET)


def pydicom_display(path):
    """[rows, columns, 3] from 0 to 255; raises whatever pydicom raises."""
    dataset = pydicom.dcmread(path, force=True)
    if "TransferSyntaxUID" not in getattr(dataset, "file_meta", {}):
        dataset.file_meta = FileMetaDataset()
        is_implicit = dataset.original_encoding[0]
        dataset.file_meta.TransferSyntaxUID = "1.2.840.10008.1.2" if is_implicit else "1.2.840.10008.1.2.1"
    stored = pydicom.pixels.pixel_array(dataset, index=0)
    for groups in ("SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):  # pydicom looks into neither
        for macro in ("PixelValueTransformationSequence", "FrameVOILUTSequence"):
            for item in dataset[groups][0].get(macro, []) if dataset.get(groups) else []:
                dataset.update(item)
    if dataset.PhotometricInterpretation == "PALETTE COLOR":
        color = apply_color_lut(stored, dataset)[..., :3]
        return color / (256 if color.max() > 255 else 1)
    if stored.ndim == 3:
        return stored / (2.0**dataset.BitsStored - 1) * 255
    gray = gray_display(dataset, stored) * 255
    return np.stack([255 - gray if dataset.PhotometricInterpretation == "MONOCHROME1" else gray] * 3, -1)


def gray_display(dataset, stored):
    """From 0 to 1: VOI table, or window, or what the README says for files without."""
    values = apply_modality_lut(stored, dataset)
    if dataset.get("VOILUTSequence"):
        return apply_voi_lut(values, dataset) / (2 ** dataset.VOILUTSequence[0].LUTDescriptor[2] - 1)
    width = np.atleast_1d(dataset.get("WindowWidth") or 0)[0]
    if width > 1:
        low, high = output_range(dataset)
        return (apply_voi_lut(values, dataset) - low) / (high - low)
    if dataset.get("Modality") == "CT" and "RescaleSlope" in dataset:
        return np.clip((values - (CT_CENTER - 0.5)) / (CT_WIDTH - 1) + 0.5, 0, 1)
    if dataset.BitsStored <= 8 and not dataset.PixelRepresentation:
        return stored / (2**dataset.BitsStored - 1)
    padding = dataset.get("PixelPaddingValue")
    every = pydicom.pixels.pixel_array(dataset) if dataset.get("NumberOfFrames", 1) > 1 else stored
    known = apply_modality_lut(every if padding is None else every[every != padding], dataset)
    low, high = np.percentile(known, (0.5, 99.5))
    return np.clip((values - low) / (high - low), 0, 1)


def output_range(dataset):
    """pydicom's windows end at the ends of what the modality step can give."""
    if dataset.get("ModalityLUTSequence"):
        return 0, 2 ** dataset.ModalityLUTSequence[0].LUTDescriptor[2] - 1
    bits, slope = dataset.BitsStored, float(dataset.get("RescaleSlope") or 1)
    ends = (-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if dataset.PixelRepresentation else (0, 2**bits - 1)
    return [end * slope + float(dataset.get("RescaleIntercept") or 0) for end in ends]


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
def test_the_display_is_that_of_pydicom(path):
    found = ours(path)
    if found is None:
        pytest.skip("refused: what is refused is tested elsewhere")
    if path.name in NATURAL:
        pytest.skip("pydicom shows it in false colours")
    try:
        expected = pydicom_display(path)
    except (AttributeError, ValueError, NotImplementedError) as error:
        pytest.skip(f"pydicom cannot: {type(error).__name__}")
    display, facts = found
    if display.shape != expected.shape:
        pytest.skip("pixels that are not square, which pydicom leaves as they are")
    tolerance = 3 if facts["transfer_syntax"] in LOSSY else 1
    assert np.abs(display - expected).mean() <= tolerance


@pytest.mark.parametrize("path", files(), ids=lambda path: path.name)
@pytest.mark.skipif(not shutil.which("dcm2pnm"), reason="DCMTK is not installed")
def test_the_display_is_that_of_dcmtk(path, tmp_path):
    found = ours(path)
    expected = found and dcmtk_display(path, tmp_path / "out.ppm", found[1]["window"])
    if expected is None:
        pytest.skip("one of the two cannot read it")
    display, facts = found
    if display.shape != expected.shape:
        pytest.skip("pixels that are not square, which are left as they are without an option")
    tolerance = 3 if facts["transfer_syntax"] in LOSSY else 1
    assert np.abs(display - expected).mean() <= tolerance


def dcmtk_display(path, output, window):
    """DCMTK's rendering with the file's own table or window, else with ``window``; None if it cannot."""
    how = []
    if window and window["origin"] == "voi lut":
        how = ["+Wl", "1"]
    elif window and window["origin"] == "file":
        how = ["+Wi", "1"]
    elif window and window["origin"] != "stored":  # which is what it does by itself
        is_linear = window["function"] == "LINEAR"  # DCMTK's windows are, and ours of percentiles is exact
        how = ["+Ww", str(window["center"] + (0 if is_linear else 0.5)), str(window["width"] + (0 if is_linear else 1))]
    for tool in DCMTK_TOOLS:
        subprocess.run([tool, "-q", *how, path, output], capture_output=True, timeout=60)
        if output.exists():
            return np.asarray(Image.open(output).convert("RGB")).astype(int)
    return None


def test_enough_was_compared():
    """A comparison that skips everything would be green too."""
    seen = [path for path in files() if ours(path) is not None]
    assert len(seen) >= 45
    syntaxes = {ours(path)[1]["transfer_syntax"] for path in seen}
    assert len(syntaxes) >= 9 and pydicom.uid.UID(JPEGBaseline8Bit).name in syntaxes
