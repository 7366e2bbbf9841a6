"""The type of an option that may be repeated: in the environment it has one value a line, since a question has spaces.

Typer's type of a text is in a private module, and in another one in older versions; so it is asked for.
"""

from typing import Any

from typer.main import get_click_type
from typer.models import OptionInfo

_Text: Any = type(get_click_type(annotation=str, parameter_info=OptionInfo()))


class _Lines(_Text):
    envvar_list_splitter = "\n"

    def split_envvar_value(self, rv: str) -> list[str]:
        return [line.strip() for line in super().split_envvar_value(rv) if line.strip()]


LINES = _Lines()
