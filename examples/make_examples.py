"""Make the two example inputs beside this file: ``slide.svs`` (synthetic tissue) and ``radiograph.dcm``.

    python examples/make_examples.py

Everything is drawn from fixed seeds: no patient was ever near these images, and nothing in them is a finding.
Needs tifffile and imagecodecs (the ``test`` extra).
"""

from pathlib import Path

import numpy as np
import tifffile
from PIL import Image, ImageDraw, ImageFilter
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian

HERE = Path(__file__).parent
SLIDE_WH = (3072, 2304)
LEVEL_FACTORS = (4, 16)
FILM_WH = (352, 384)
GLASS, STROMA, GLAND, NUCLEUS = (243, 241, 244), (226, 158, 196), (202, 128, 186), (92, 54, 132)
UID_ROOT = "1.2.826.0.1.3680043.8.498."  # pydicom's own, for things without an owner


def smooth_noise(shape_hw: tuple[int, int], cell_px: int, rng: np.random.Generator) -> np.ndarray:
    """Soft noise from 0 to 1, [height, width], its blobs about ``cell_px`` wide."""
    height, width = shape_hw
    coarse = rng.random((height // cell_px + 3, width // cell_px + 3), np.float32)
    return np.asarray(Image.fromarray(coarse).resize((width, height), Image.Resampling.BICUBIC)).clip(0, 1)


def tissue_mask(rng: np.random.Generator) -> np.ndarray:
    """Where there is tissue on the glass: one ragged piece with fissures, [height, width] bool."""
    width, height = SLIDE_WH
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    radius = np.hypot((x - width * 0.48) / (width * 0.40), (y - height * 0.5) / (height * 0.38))
    ragged = radius + 0.55 * (smooth_noise((height, width), 300, rng) - 0.5)
    fissures = np.abs(smooth_noise((height, width), 170, rng) - 0.5) < 0.012
    return (ragged < 0.92) & ~fissures


def draw_glands(image: Image.Image, mask: np.ndarray, rng: np.random.Generator) -> None:
    """Rings of epithelium around a white lumen, their nuclei along the outer edge."""
    draw = ImageDraw.Draw(image)
    for _ in range(150):
        x, y = rng.integers(0, SLIDE_WH[0]), rng.integers(0, SLIDE_WH[1])
        if not mask[y, x]:
            continue
        outer, squeeze, turn = rng.uniform(32, 75), rng.uniform(0.6, 1.0), rng.uniform(0, np.pi)
        angles = np.linspace(0, 2 * np.pi, 60, endpoint=False)
        wobble = 1 + 0.10 * np.sin(angles * rng.integers(3, 6) + turn)
        around = np.stack([np.cos(angles), np.sin(angles) * squeeze], 1) * wobble[:, None]
        cos, sin = np.cos(turn), np.sin(turn)
        ring = around @ np.array([[cos, sin], [-sin, cos]])
        draw.polygon([tuple(point) for point in ring * outer + (x, y)], fill=GLAND)
        draw.polygon([tuple(point) for point in ring * outer * 0.45 + (x, y)], fill=GLASS)
        for point in ring[:: rng.integers(2, 4)] * outer * 0.84 + (x, y):
            draw_nucleus(draw, point, rng.uniform(4.5, 6.5), rng)


def draw_nucleus(draw: ImageDraw.ImageDraw, at: np.ndarray, radius: float, rng: np.random.Generator) -> None:
    """One nucleus, oval, in its own shade, with a darker nucleolus."""
    wide, high = radius * rng.uniform(0.7, 1.25), radius * rng.uniform(0.7, 1.25)
    shade = tuple(int(value + rng.integers(-18, 19)) for value in NUCLEUS)
    draw.ellipse((at[0] - wide, at[1] - high, at[0] + wide, at[1] + high), fill=shade)
    draw.ellipse((at[0] - 1.5, at[1] - 1.5, at[0] + 1.5, at[1] + 1.5), fill=(64, 34, 104))


def draw_slide() -> Image.Image:
    """The level-0 image of the slide, as after haematoxylin and eosin."""
    rng = np.random.default_rng(7)
    width, height = SLIDE_WH
    mask = tissue_mask(rng)
    fibres = smooth_noise((height, width // 6), 7, rng)  # stretched sideways below
    fibres = np.asarray(Image.fromarray(fibres).resize(SLIDE_WH, Image.Resampling.BICUBIC))[..., None]
    patches = smooth_noise((height, width), 220, rng)[..., None]
    stroma = np.array(STROMA) + 46 * (fibres - 0.5) * (0.5, 1.0, 0.7) - 26 * (patches - 0.5) * (0.2, 1.2, 0.4)
    image = Image.fromarray(np.where(mask[..., None], stroma, GLASS).clip(0, 255).astype(np.uint8))
    draw_glands(image, mask, rng)
    draw = ImageDraw.Draw(image)
    crowding = smooth_noise((height, width), 260, rng)
    for x, y in rng.uniform((0, 0), SLIDE_WH, (16_000, 2)):
        row, column = int(y), int(x)
        if mask[row, column] and crowding[row, column] ** 2 > rng.random() * 0.9:
            draw_nucleus(draw, np.array([x, y]), rng.uniform(3.2, 5.5), rng)
    outside = Image.fromarray((~mask).astype(np.uint8) * 255)
    image.paste(GLASS, mask=outside)
    return image.filter(ImageFilter.GaussianBlur(0.9))


def write_slide(path: Path) -> None:
    """An Aperio-style pyramid: level 0, a thumbnail, two further levels; 0.5 microns per pixel."""
    base = draw_slide()
    width, height = base.size
    text = f"Aperio Image Library v12.0.0\r\n{width}x{height} [0,0 {width}x{height}] (256x256) JPEG/RGB Q=60"
    text += "|AppMag = 20|MPP = 0.5000|Filename = synthetic"
    thumbnail = base.resize((width // 6, height // 6), Image.Resampling.BICUBIC)
    levels = [base.resize((width // by, height // by), Image.Resampling.BOX) for by in LEVEL_FACTORS]
    with tifffile.TiffWriter(path) as tiff:
        for image, is_tiled in [(base, True), (thumbnail, False), *((level, True) for level in levels)]:
            tiff.write(
                np.asarray(image),
                photometric="rgb",
                compression="jpeg",
                compressionargs={"level": 60},
                description=text,
                metadata=None,
                software=False,
                tile=(256, 256) if is_tiled else None,
                rowsperstrip=None if is_tiled else 16,
            )


def draw_film() -> np.ndarray:
    """Attenuation like that of a frontal chest film, [rows, columns] from 0 (air) to 1 (bone)."""
    rng = np.random.default_rng(11)
    width, height = FILM_WH
    y, x = np.mgrid[0:height, 0:width].astype(np.float32)
    u, v = (x - width / 2) / (width / 2), (y - height / 2) / (height / 2)

    def oval(at_u: float, at_v: float, wide: float, high: float, edge: float) -> np.ndarray:
        distance = np.hypot((u - at_u) / wide, (v - at_v) / high)
        return 1 / (1 + np.exp(np.minimum((distance - 1) / edge, 60)))

    body = np.maximum(oval(0, 0.35, 0.93, 1.25, 0.03), oval(0, -0.75, 0.24, 0.6, 0.05))
    film = 0.52 * body
    for side in (-1, 1):
        lung = oval(side * 0.44, -0.02, 0.33, 0.62, 0.05) * (1 - oval(side * 0.42, 0.72, 0.42, 0.24, 0.06))
        film -= 0.34 * lung
        for rib in range(9):
            centre = -0.62 + 0.155 * rib + 0.55 * (np.abs(u) - 0.42) ** 2
            inside = (np.sign(u) == side) & (np.abs(u) > 0.08) & (np.abs(u) < 0.8)
            film += 0.075 * np.exp(-(((v - centre - 0.12 * np.abs(u)) / 0.022) ** 2)) * inside * body
        film += 0.13 * np.exp(-(((v + 0.70 - 0.16 * np.abs(u)) / 0.026) ** 2)) * (np.sign(u) == side) * body
        film += 0.10 * oval(side * 0.17, 0.02, 0.10, 0.20, 0.25)
    film += 0.20 * oval(0, 0, 0.085, 1.4, 0.12) + 0.20 * oval(0.14, 0.28, 0.27, 0.30, 0.06)
    film += 0.025 * np.cos(v * 70) * oval(0, 0, 0.075, 1.3, 0.1)
    film += 0.03 * (smooth_noise((height, width), 24, rng) - 0.5) * body
    return np.clip(film + rng.normal(0, 0.006, film.shape), 0, 1)


def write_film(path: Path) -> None:
    """A 12-bit MONOCHROME1 film: what attenuates most has the lowest value, and is to be shown white."""
    stored = np.rint(3600 - 3300 * draw_film()).astype("<u2")
    film = Dataset()
    film.SOPClassUID = "1.2.840.10008.5.1.4.1.1.1"  # Computed Radiography Image Storage
    film.SOPInstanceUID, film.SeriesInstanceUID, film.StudyInstanceUID = (UID_ROOT + last for last in "123")
    film.PatientName, film.PatientID = "Synthetic^Example", "EXAMPLE"
    film.Modality, film.BodyPartExamined, film.ViewPosition = "CR", "CHEST", "PA"
    film.PhotometricInterpretation, film.SamplesPerPixel, film.PixelRepresentation = "MONOCHROME1", 1, 0
    film.Rows, film.Columns = stored.shape
    film.BitsAllocated, film.BitsStored, film.HighBit = 16, 12, 11
    film.PixelSpacing = [1.0, 1.0]
    film.WindowCenter, film.WindowWidth = 2100, 3200
    film.PixelData = stored.tobytes()
    film.file_meta = FileMetaDataset()
    film.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    film.save_as(path, enforce_file_format=True)


def main(folder: Path = HERE) -> None:
    write_slide(folder / "slide.svs")
    write_film(folder / "radiograph.dcm")


if __name__ == "__main__":
    main()
