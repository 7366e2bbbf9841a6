"""What a user should know of a header before its pixels are shown: sentences, none with anything of the patient.

What comes up while frames are shown (``image``), or of slices as a stack (``series``), is told there.
"""

from collections.abc import Iterator

from pydicom.dataset import Dataset

from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom.pixel_facts import PixelFacts

BURNED_IN = "the file says that text is burned into its pixels: it may name the patient"
FOR_PROCESSING = "the file is meant for processing, not for display: bright and dark may be swapped in it"
OVERLAYS = "the file has overlays, such as marks and text, which are not shown"
PARTLY_COLOURED = (
    "the file has colours for some of its values, such as flow (a supplemental palette): they are shown grey"
)
MASKED = "the file is meant to be shown less its mask frame (subtraction angiography): it is shown without that"
NO_PHOTOMETRIC = "the file does not say whether its lowest values are black or white: they are shown black"
TWO_DIRECTIONS = (
    "the file says in one place that its lowest values are white and in another that they are black (Photometric "
    "Interpretation, Presentation LUT Shape): they are shown white"
)
WHOLE_422 = "its colours are called YBR_FULL_422 and are stored in full: they are taken for what they look like"
_CONTRADICTIONS = (("MONOCHROME1", "IDENTITY"), ("MONOCHROME2", "INVERSE"))  # PS3.3 C.7.6.3, C.8.11.3
_OVERLAY_GROUPS, _OVERLAY_ROWS = range(0x6000, 0x6020, 2), 0x0010  # PS3.3 C.9.2


def notes_of(header: Dataset, facts: PixelFacts) -> Iterator[str]:
    """One sentence each; may raise whatever pydicom raises."""
    if header_of.code_of(header, "BurnedInAnnotation") == "YES":
        yield BURNED_IN
    if header_of.code_of(header, "PresentationIntentType") == "FOR PROCESSING":
        yield FOR_PROCESSING
    if any((group << 16 | _OVERLAY_ROWS) in header for group in _OVERLAY_GROUPS):
        yield OVERLAYS
    if facts.is_gray and "RedPaletteColorLookupTableDescriptor" in header:  # PS3.3 C.7.6.19
        yield PARTLY_COLOURED
    if header_of.code_of(header, "RecommendedViewingMode") == "SUB":
        yield MASKED
    if not facts.photometric and facts.is_gray:
        yield NO_PHOTOMETRIC
    if (facts.photometric, header_of.code_of(header, "PresentationLUTShape")) in _CONTRADICTIONS:
        yield TWO_DIRECTIONS
    if facts.is_whole_422:
        yield WHOLE_422
    yield from _of_frames(header, facts)


def _of_frames(header: Dataset, facts: PixelFacts) -> Iterator[str]:
    described = len(header.get("PerFrameFunctionalGroupsSequence") or ())
    if described not in (0, facts.frames):
        yield f"its header describes {described} frames, of {facts.frames}: the others may look otherwise"
    if facts.is_of_another_shape:
        yield f"its pixel data is {facts.surplus_bytes} bytes longer than its header declares: its rows may be shifted"
    elif facts.room != facts.frames:
        yield f"its pixel data has room for {facts.room} frames: {facts.frames}, as it declares, are taken"
