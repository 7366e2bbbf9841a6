"""Whether a TIFF holds all that its directories point to.

Libraries pass over a value beyond the end of the file: then colours are shown without their profile, or read as samples
of one bit. Many programs write directories and these values last.
"""

import struct
from collections.abc import Iterator
from typing import Any

import tifffile

# The tags whose values decide what is shown. Without another one, such as the resolution, a file is told to lack it.
_DECIDING = {
    tifffile.TIFF.TAGS[name]
    for name in (
        "BitsPerSample",
        "ColorMap",
        "ExtraSamples",
        "InterColorProfile",
        "JPEGTables",
        "MaxSampleValue",
        "ReferenceBlackWhite",
        "SampleFormat",
        "StripByteCounts",
        "StripOffsets",
        "SubIFDs",
        "TileByteCounts",
        "TileOffsets",
        "YCbCrCoefficients",
    )
}


def ends_early(tiff: tifffile.TiffFile) -> bool:
    """Whether tiles or strips of a page begin, or its values end, beyond the end of the file. Raises as tifffile."""
    end = tiff.filehandle.size
    return any(
        max(page.dataoffsets, default=0) >= end or any(place > end for place in _ends_of_values(tiff, page))
        for page in map(_whole, tiff.pages)
    )


def _whole(page: Any) -> Any:
    return page.aspage()  # those after the first have the first one's tags otherwise


def _ends_of_values(tiff: tifffile.TiffFile, page: Any) -> Iterator[int]:
    """Of the deciding values that do not fit into the directory of a page."""
    layout, file = tiff.tiff, tiff.filehandle
    if layout.is_ndpi:  # its upper 32 bits of every offset are elsewhere
        return
    file.seek(page.offset)
    (entries,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
    for tag, kind, count, place in struct.iter_unpack(layout.tagheaderformat, file.read(entries * layout.tagsize)):
        size = count * struct.calcsize(tifffile.TIFF.DATA_FORMATS.get(kind, "0B"))
        if tag in _DECIDING and size > layout.tagoffsetthreshold:
            (offset,) = struct.unpack(layout.offsetformat, place)
            yield offset + size
