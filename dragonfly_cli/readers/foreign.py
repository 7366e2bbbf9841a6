"""What a file is that no reader here opens, so that a refusal can say more than that it is unknown."""

HEAD_BYTES = 1024
# What it is called, where in the file its mark stands, and the mark.
_MARKS = (
    *(("a HEIC picture", 4, b"ftyp" + brand) for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"mif1")),
    ("a JPEG XL picture", 0, b"\xff\x0a"),
    ("a JPEG XL picture", 0, b"\0\0\0\x0cJXL "),
    ("a Photoshop file", 0, b"8BPS"),
    ("a PDF", 0, b"%PDF"),
    ("PostScript", 0, b"%!PS"),
    ("a NIfTI volume", 344, b"n+1\0"),
    ("a NIfTI volume", 344, b"ni1\0"),
    ("a NIfTI volume", 4, b"n+2\0"),
    ("an NRRD volume", 0, b"NRRD00"),
    ("a video", 4, b"ftyp"),
    ("a video", 0, b"\x1a\x45\xdf\xa3"),
)


def foreign_kind(head: bytes) -> str | None:
    """The kind of a file with these first ``HEAD_BYTES``; None where they say nothing."""
    kind = next((name for name, at, mark in _MARKS if head.startswith(mark, at)), None)
    return kind or ("an SVG drawing" if b"<svg" in head else None)
