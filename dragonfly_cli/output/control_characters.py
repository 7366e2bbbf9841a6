"""Makes text from a model or a file name harmless: control characters in it could steer a terminal."""

import re
import unicodedata

_BEYOND_ASCII = re.compile("[\x7f-\x9f\u202a-\u202e\u2066-\u2069]")
_TURNS_TEXT_AROUND = frozenset("\u202a\u202b\u202c\u202d\u202e\u2066\u2067\u2068\u2069")


def harmless(text: str) -> str:
    """``text`` with control characters (not newline and tab) replaced, and those that reverse what follows."""
    return "".join("\ufffd" if _steers(c) else c for c in text)


def harmless_rows(table: str) -> str:
    """The same for a CSV, whose lines end in CR and LF."""
    return "\r\n".join(harmless(row) for row in table.split("\r\n"))


def escaped(json_text: str) -> str:
    """JSON with these characters escaped: ``json`` itself escapes only those below 32."""
    return _BEYOND_ASCII.sub(lambda found: f"\\u{ord(found[0]):04x}", json_text)


def _steers(character: str) -> bool:
    is_control = unicodedata.category(character) == "Cc" and character not in "\n\t"
    return is_control or character in _TURNS_TEXT_AROUND
