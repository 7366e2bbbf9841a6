"""What the first bytes of a file, and its suffix, tell of its kind. Nothing heavy is imported."""

from dragonfly_cli.readers.dicom.signature import WSI_SOP_CLASS, is_dicom, sop_class

TIFF_MAGICS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
TIFF_HEADER_BYTES = 8  # no pixels lie there
ZIP_MAGIC = b"PK\x03\x04"
_ARCHIVE_MAGICS = (ZIP_MAGIC, b"PK\5\6", b"\x1f\x8b", b"BZh", b"\xfd7zXZ\0")  # zip, empty zip; packed tars
_RASTER_MAGICS = (
    b"\x89PNG\r\n\x1a\n",
    b"\xff\xd8\xff",  # JPEG
    b"GIF8",
    b"\0\0\0\x0cjP  ",  # JPEG 2000 in a box
    b"\xff\x4f\xff\x51",  # JPEG 2000 bare
)

ZIP_SUFFIX = ".zip"
SLIDE_SUFFIXES = frozenset((".svs", ".ndpi", ".mrxs", ".scn", ".bif", ".vms", ".vmu", ".svslide", ".czi"))
DICOM_SUFFIXES = frozenset((".dcm", ".dicom", ".dic"))
_RASTER = ".png .jpg .jpeg .jpe .tif .tiff .gif .bmp .webp .jp2 .j2k .avif .pgm .ppm .pnm"
RASTER_SUFFIXES = frozenset(_RASTER.split())
_OTHER = ".csv .tsv .txt .md .rst .json .jsonl .geojson .xml .html .yaml .yml .toml .ini .log .pdf .gz .py"
OTHER_SUFFIXES = frozenset(_OTHER.split())


def has_image_magic(head: bytes) -> bool:
    """Whether a file begins as a TIFF or an ordinary picture does."""
    is_webp = head[:4] == b"RIFF" and head[8:12] == b"WEBP"
    is_bmp = head[:2] == b"BM" and head[6:10] == b"\0\0\0\0"
    is_avif = head[4:12] in (b"ftypavif", b"ftypavis")
    return head.startswith(TIFF_MAGICS + _RASTER_MAGICS) or is_webp or is_bmp or is_avif


def is_archive(head: bytes) -> bool:
    """Whether a file is a zip, or a tar, packed or not."""
    return head.startswith(_ARCHIVE_MAGICS) or head[257:262] == b"ustar"


def is_dicom_slide(head: bytes) -> bool:
    """Whether a file is one of those that make up a DICOM whole slide."""
    return is_dicom(head) and sop_class(head) == WSI_SOP_CLASS
