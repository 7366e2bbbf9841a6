"""The shape of a data set's pixels as its header declares it, checked before any memory is taken for them."""

import math
from dataclasses import dataclass, replace
from typing import Any

from pydicom.dataset import Dataset
from pydicom.uid import UID, UncompressedTransferSyntaxes

from dragonfly_cli.errors import InputError
from dragonfly_cli.readers.dicom import header as header_of
from dragonfly_cli.readers.dicom.failures import COPY_HINT
from dragonfly_cli.readers.dicom.places import Place, size_of
from dragonfly_cli.readers.dicom.terms import photometric

PIXEL_KEYWORDS = ("PixelData", "FloatPixelData", "DoubleFloatPixelData")
MAX_FRAME_PIXELS = 250_000_000  # 500 MB of 16 bits; the largest films and photographs have a tenth of it
_YBR = ("YBR_FULL", "YBR_FULL_422", "YBR_PARTIAL_420", "YBR_PARTIAL_422", "YBR_ICT", "YBR_RCT")
PHOTOMETRIC_OF = {1: ("MONOCHROME1", "MONOCHROME2", "PALETTE COLOR"), 3: ("RGB", *_YBR)}  # by samples a pixel
FRAGMENT_BYTES = 8  # the smallest that a frame can take in encapsulated pixel data


@dataclass(frozen=True)
class PixelFacts:
    """The shape of a data set's pixels as its header declares it; ``bits`` are those stored, ``allocated`` those taken.

    ``offset`` is where the value of the pixel data begins in the file, None where that is not known (deflated).
    """

    keyword: str
    rows: int
    columns: int
    samples: int
    frames: int
    allocated: int
    bits: int
    spare_low_bits: int  # of older files, which may keep their value in the upper bits of a word
    photometric: str  # "" in old files, which may leave it out
    is_whole_422: bool  # called YBR_FULL_422, and uncompressed with all three samples of every pixel
    syntax: UID
    length: int  # bytes of the element; 2**32 - 1 when undefined
    offset: int | None
    listed: int  # frames that an offset table of encapsulated pixel data names, 0 without one

    @property
    def is_gray(self) -> bool:
        """Whether a sample is a grey value."""
        return self.samples == 1 and self.photometric != "PALETTE COLOR"

    @property
    def assumed_photometric(self) -> str:
        """What is said, or meant where nothing is."""
        return self.photometric or ("MONOCHROME2" if self.samples == 1 else "RGB")

    @property
    def is_compressed(self) -> bool:
        """Whether frames are encapsulated; so are those of transfer syntaxes that nobody here knows."""
        return self.syntax not in UncompressedTransferSyntaxes

    @property
    def room(self) -> int:
        """How many frames pixel data holds, whatever the header declares; compressed, as far as a table tells."""
        return max(self.frames, self.listed) if self.is_compressed else 8 * self.length // self.frame_bits

    @property
    def surplus_bytes(self) -> int:
        """What uncompressed pixel data has beyond the frames that its header declares, padding included."""
        return 0 if self.is_compressed else self.length - math.ceil(self.frames * self.frame_bits / 8)

    @property
    def is_in_whole_bytes(self) -> bool:
        """Whether samples that the header calls packed, as those of 12 bits are, have whole bytes of their own."""
        samples = self.frames * self.frame_bits // self.allocated
        return self.surplus_bytes > 1 and self.length - samples * math.ceil(self.allocated / 8) in (0, 1)

    @property
    def is_of_another_shape(self) -> bool:
        """Whether uncompressed pixel data has more than a byte of padding behind its last whole frame."""
        return not self.is_compressed and 8 * self.length % self.frame_bits >= 16

    @property
    def frame_bits(self) -> int:
        """Bits of one uncompressed frame."""
        is_halved = self.photometric == "YBR_FULL_422" and self.samples == 3 and not self.is_whole_422
        samples = 2 if is_halved else self.samples
        return self.rows * self.columns * samples * self.allocated


def room_for_frames(header: Dataset, declared_bytes: int, file_bytes: int) -> int:
    """How many frames of at least one sample a pixel go into a pixel data element whose declared length is given."""
    if header_of.syntax_of(header) not in UncompressedTransferSyntaxes:
        return min(declared_bytes, file_bytes) // FRAGMENT_BYTES
    frame_bits = int(header.Rows) * int(header.Columns) * int(header.get("BitsAllocated") or 1)
    return 8 * declared_bytes // frame_bits


def pixel_facts(header: Dataset, place: Place) -> PixelFacts:
    """What the header declares; raises InputError for what cannot be, or would not fit memory."""
    keyword = next(word for word in PIXEL_KEYWORDS if word in header)
    element: Any = header.get_item(keyword)
    is_raw = getattr(element, "is_raw", False)
    length = element.length if is_raw else len(element.value or b"")
    default_bits = {"PixelData": 0, "FloatPixelData": 32, "DoubleFloatPixelData": 64}[keyword]
    allocated = int(header.get("BitsAllocated") or default_bits)
    bits = min(int(header.get("BitsStored") or allocated), allocated)
    high_bit = min(int(header.get("HighBit") or bits - 1), allocated - 1)
    frames = header.get("NumberOfFrames")
    facts = PixelFacts(
        keyword=keyword,
        rows=int(header.Rows),
        columns=int(header.Columns),
        samples=int(header.get("SamplesPerPixel") or 1),
        frames=1 if frames is None or frames == "" else int(frames),
        allocated=allocated,
        bits=bits,
        spare_low_bits=max(0, high_bit + 1 - bits) if keyword == "PixelData" else 0,
        photometric=photometric(str(header.get("PhotometricInterpretation") or "")),
        is_whole_422=False,
        syntax=header_of.syntax_of(header),
        length=length,
        offset=element.value_tell if is_raw and header_of.has_place(header) else None,
        listed=0,
    )
    if facts.is_compressed:
        facts = replace(facts, listed=_frames_listed(header, facts, place))
    if not facts.is_compressed and facts.photometric == "YBR_FULL_422":
        in_full = replace(facts, is_whole_422=True)
        facts = in_full if in_full.room == facts.frames else facts
    _check_facts(facts, place)
    return facts


def _frames_listed(header: Dataset, facts: PixelFacts, place: Place) -> int:
    """The entries of the Extended Offset Table, or else of the basic one, whose item pixel data begins with."""
    if not header_of.is_empty(header, "ExtendedOffsetTable"):
        return len(header.ExtendedOffsetTable) // 8
    if facts.offset is None:
        return 0
    with place.opener() as file:
        file.seek(facts.offset + 4)
        return int.from_bytes(file.read(4), "little") // 4


def _check_facts(facts: PixelFacts, place: Place) -> None:
    label = place.label
    shape = f"{facts.columns} x {facts.rows} pixels, {facts.frames} frames of {facts.samples} x {facts.allocated} bits"
    if facts.length == 0:
        raise InputError(f"cannot show {label}: its pixel data is empty", COPY_HINT)
    if min(facts.rows, facts.columns, facts.frames, facts.allocated) < 1 or facts.samples not in (1, 3):
        raise InputError(f"cannot show {label}: its header declares {shape}", COPY_HINT)
    if facts.assumed_photometric not in PHOTOMETRIC_OF[facts.samples]:
        samples = f"{facts.samples} sample{'s' * (facts.samples > 1)} a pixel"
        why = f"its photometric interpretation ({facts.photometric}) is none that is known for {samples}"
        raise InputError(f"cannot show {label}: {why}", "correct the header, or export the file again")
    if facts.rows * facts.columns > MAX_FRAME_PIXELS:
        raise InputError(
            f"cannot show {label}: it declares {shape}, more than {MAX_FRAME_PIXELS // 10**6} million pixels a frame",
            "a whole slide must be a slide file; otherwise the header is damaged",
        )
    if facts.is_in_whole_bytes:
        raise InputError(f"cannot show {label}: it declares {shape}, but they lie in whole bytes", "correct the header")
    length = min(facts.length, size_of(place)) if facts.is_compressed else facts.length
    wanted = facts.frames * FRAGMENT_BYTES if facts.is_compressed else math.ceil(facts.frames * facts.frame_bits / 8)
    if length < wanted:
        raise InputError(f"cannot show {label}: it declares {shape}, but its pixel data is cut short", COPY_HINT)
