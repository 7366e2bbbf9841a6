"""JSON as this program writes it: indented, with letters as they are instead of escapes, and a line end behind it."""

import json
from typing import Any

from dragonfly_cli.output.control_characters import escaped


def json_text(content: Any) -> str:
    """Harmless on a terminal, and read again as it was: what could steer one is escaped."""
    return escaped(json.dumps(content, ensure_ascii=False, indent=2)) + "\n"
