"""JSON as this program writes it: indented, with letters as they are instead of escapes, and a line end behind it."""

import json
from typing import Any


def json_text(content: Any) -> str:
    return json.dumps(content, ensure_ascii=False, indent=2) + "\n"
