"""What a file is that no reader here opens, so that a refusal can say more than that it is unknown, and what helps.

Content decides before the suffix. Some look like what is opened here: the TIFF of a ``.vsi`` is a preview and a label,
the slide lies in a folder beside it; an old ``.nd2`` is a JPEG 2000 of its first plane; a ``.nii.gz`` is no archive.
"""

import zlib
from dataclasses import dataclass
from pathlib import Path

from dragonfly_cli.errors import InputError

HEAD_BYTES = 1024
EXPORT_SLIDE = "export it as OME-TIFF, for example with QuPath or Bio-Formats"


@dataclass(frozen=True)
class Foreign:
    """A kind of file: what it is called, and what to make of it so that it can be opened."""

    name: str
    remedy: str = "save it as PNG or TIFF"


def _volume(name: str) -> Foreign:
    return Foreign(name, "export it as a DICOM series, for example with 3D Slicer")


def _microscope(name: str) -> Foreign:
    return Foreign(name, EXPORT_SLIDE)


_HEIC, _JPEG_XL, _VIDEO = Foreign("a HEIC picture"), Foreign("a JPEG XL picture"), Foreign("a video")
_NIFTI, _NRRD, _META_IMAGE = _volume("a NIfTI volume"), _volume("an NRRD volume"), _volume("a MetaImage volume")
_LIF, _ND2, _OIR = map(_microscope, ("a Leica LIF file", "a Nikon ND2 file", "an Olympus OIR file"))
_VSI, _ZARR = _microscope("an Olympus VSI slide"), _microscope("a Zarr image")
_MARKS = (  # where in the file each stands
    *((_HEIC, 4, b"ftyp" + brand) for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1")),
    (_JPEG_XL, 0, b"\xff\x0a"),
    (_JPEG_XL, 0, b"\0\0\0\x0cJXL "),
    (Foreign("a Photoshop file"), 0, b"8BPS"),
    (Foreign("a PDF"), 0, b"%PDF"),
    (Foreign("PostScript"), 0, b"%!PS"),
    (_NIFTI, 344, b"n+1\0"),
    (_NIFTI, 344, b"ni1\0"),
    (_NIFTI, 4, b"n+2\0"),
    (_NRRD, 0, b"NRRD00"),
    (_META_IMAGE, 0, b"ObjectType = "),
    (_ND2, 0, b"\xda\xce\xbe\x0a"),
    (_OIR, 0, b"OLYMPUSRAWFORMAT"),
    (_VIDEO, 4, b"ftyp"),
    (_VIDEO, 0, b"\x1a\x45\xdf\xa3"),
)
_SUFFIXES = {
    **dict.fromkeys((".heic", ".heif"), _HEIC),
    **dict.fromkeys((".nii", ".nii.gz"), _NIFTI),
    **dict.fromkeys((".nrrd", ".nhdr"), _NRRD),
    **dict.fromkeys((".mha", ".mhd"), _META_IMAGE),
    ".jxl": _JPEG_XL,
    ".lif": _LIF,
    ".nd2": _ND2,
    ".oir": _OIR,
    ".vsi": _VSI,
}
FOREIGN_SUFFIXES = tuple(_SUFFIXES)  # of pictures that are refused, and so must be listed
_DISGUISED = (".vsi", ".nd2")
_ZARR_FILES = (".zattrs", ".zgroup", "zarr.json")


def foreign_kind(path: Path, head: bytes) -> Foreign | None:
    """The kind of a file with these first ``HEAD_BYTES``; None where neither they nor its suffix say anything."""
    kind = next((kind for kind, at, mark in _MARKS if head.startswith(mark, at)), None) or _by_suffix(path)
    return kind or (Foreign("an SVG drawing") if b"<svg" in head else None)


def disguised(path: Path, head: bytes) -> Foreign | None:
    """The kind of a file or folder that a reader here would take for its own."""
    if not head:
        return _ZARR if any((path / name).is_file() for name in _ZARR_FILES) else None
    if head.startswith(b"\x1f\x8b"):
        kind = foreign_kind(path, _unpacked(head))
        return kind if kind in (_NIFTI, _NRRD, _META_IMAGE) else None
    return _by_suffix(path) if path.suffix.lower() in _DISGUISED else None


def refusal(path: Path, kind: Foreign) -> InputError:
    return InputError(f"cannot open {path}: it is {kind.name}, which is not supported", kind.remedy)


def _by_suffix(path: Path) -> Foreign | None:
    name = path.name.lower()
    return next((kind for suffix, kind in _SUFFIXES.items() if name.endswith(suffix)), None)


def _unpacked(head: bytes) -> bytes:
    try:
        return zlib.decompressobj(zlib.MAX_WBITS | 16).decompress(head, HEAD_BYTES)
    except zlib.error:
        return b""
