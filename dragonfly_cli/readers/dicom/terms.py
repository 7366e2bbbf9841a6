"""Which code words of a header may be shown: the defined terms of the standard, and nothing else that stands there.

A broken or hostile file can hold anything where a code word belongs, a patient's name included. PS3.3 C.7.3.1.1.1
(Modality, whose terms are CID 33 of PS3.16) and C.7.6.3.1.2 (Photometric Interpretation).
"""

from functools import cache

from pydicom.pixels.common import PhotometricInterpretation

NOT_A_TERM = "not a defined term"
# Modalities that were defined once; thirty years of scanners have written them.
RETIRED = frozenset(("AS", "CD", "CF", "CP", "CS", "DD", "DF", "DM", "DS", "EC", "FA", "FS", "LP", "MA", "MS", "OPR"))
RETIRED |= {"ST", "VF"}
PHOTOMETRIC = {term.replace(" ", ""): term for term in map(str.upper, PhotometricInterpretation)}


def told_modality(word: str) -> str | None:
    """``word`` if it is a modality, None without one."""
    if not word:
        return None
    return word if word in RETIRED or word in _modalities() else NOT_A_TERM


def photometric(text: str) -> str:
    """The photometric interpretation that ``text`` means, in whatever case and with whatever spaces it is written."""
    word = "".join(text.upper().split())
    return PHOTOMETRIC.get(word, NOT_A_TERM) if word else ""


@cache
def _modalities() -> frozenset[str]:
    from pydicom.sr.codedict import codes  # large, and needed for the few words that are shown alone

    group = codes.cid33
    return frozenset(getattr(group, name).value for name in group.dir())
