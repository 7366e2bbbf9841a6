"""What the first bytes of a file tell: whether it is DICOM, and of which class. Nothing heavy is imported."""

import re

HEAD_BYTES = 4096  # more than the file meta information of a DICOM file takes
WSI_SOP_CLASS = b"1.2.840.10008.5.1.4.1.1.77.1.6"
DICOMDIR_SOP_CLASS = b"1.2.840.10008.1.3.10"
# Group 2 or 8, an element, then a 32-bit length below 64 KiB or the two letters of a value representation.
IMPLICIT_START = re.compile(rb"[\x02\x08]\0.\0..\0\0", re.DOTALL)
EXPLICIT_START = re.compile(rb"(?:[\x02\x08]\0.\0|\0[\x02\x08]\0.)(?:UI|UL|CS|SH|LO|DA|TM|OB|SQ)", re.DOTALL)


def is_dicom(head: bytes) -> bool:
    """Whether the first bytes of a file are those of DICOM, with its preamble or without."""
    if head[128:132] == b"DICM":
        return True
    return bool(EXPLICIT_START.match(head) or (len(head) > 128 and IMPLICIT_START.match(head)))


def sop_class(head: bytes) -> bytes:
    """The Media Storage SOP Class UID of the file meta information, explicit VR by the standard."""
    return _meta_uid(head, b"\x02\0\x02\0UI")


def instance_uid(head: bytes) -> bytes:
    """The Media Storage SOP Instance UID beside it, the same in every copy of a file; for comparing, never shown."""
    return _meta_uid(head, b"\x02\0\x03\0UI")


def _meta_uid(head: bytes, tag: bytes) -> bytes:
    tag_at = head.find(tag)
    if tag_at < 0:
        return b""
    length = int.from_bytes(head[tag_at + 6 : tag_at + 8], "little")
    return head[tag_at + 8 : tag_at + 8 + length].rstrip(b"\0 ")
