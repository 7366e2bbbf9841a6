"""Whether a TIFF holds all that its directories point to, and whether these make sense and come to an end.

Libraries pass over a value beyond the end of the file: then colours are shown without their profile, or read as samples
of one bit. Many programs write directories and these values last.
"""

import math
import struct
from collections.abc import Iterator
from contextlib import suppress
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


def has_misfit(tiff: tifffile.TiffFile) -> bool:
    """Whether a page has a table of more or fewer tiles than its size asks for, so that these have other places."""
    pages = map(_whole, tiff.pages)
    return any(page.is_tiled and len(page.dataoffsets) != math.prod(page.chunked) for page in pages)


def goes_in_circles(tiff: tifffile.TiffFile) -> bool:
    """Whether a page is followed by an earlier one or itself: tifffile would go round for ever."""
    file, layout = tiff.filehandle, tiff.tiff
    offset, seen = tiff.pages.first.offset if tiff.pages else 0, set[int]()
    with suppress(struct.error, OSError, OverflowError):  # of a page that is broken off, which comes last
        while 0 < offset < file.size:
            if offset in seen:
                return True
            seen.add(offset)
            file.seek(offset)
            (entries,) = struct.unpack(layout.tagnoformat, file.read(layout.tagnosize))
            file.seek(offset + layout.tagnosize + entries * layout.tagsize)
            (offset,) = struct.unpack(layout.offsetformat, file.read(layout.offsetsize))
    return False


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
