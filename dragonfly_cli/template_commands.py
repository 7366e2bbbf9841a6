"""``dragonfly template``: shows the prompts that ``-t`` names."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from dragonfly_cli.app import App

if TYPE_CHECKING:
    from dragonfly_cli.options import DebugOption

template_app = App("Show the prompts that --template names.", options=("dragonfly_cli.options",))


@template_app.command("list")
def list_templates(debug: DebugOption = False) -> None:
    """List all templates, and where your own are read from."""
    from dragonfly_cli.output.terminal import say, show
    from dragonfly_cli.templates import all_templates, own_file

    templates = all_templates().values()
    width = max(len(each.name) for each in templates)
    for each in templates:
        show(f"{each.name:<{width}}  {' '.join(each.about.split())}{'' if each.is_built_in else ' (your own)'}\n")
    say(f"note: your own templates are read from {own_file()}")


@template_app.command("show")
def show_template(
    name: Annotated[str, typer.Argument(metavar="NAME", help="A name that `dragonfly template list` shows.")],
    debug: DebugOption = False,
) -> None:
    """Show one template, in the form of a templates file."""
    import json
    import re

    from dragonfly_cli.output.terminal import show
    from dragonfly_cli.templates import find_template

    template = find_template(name)
    written = {"about": template.about, "system": template.system, "questions": list(template.questions)}
    lines = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in written.items() if value]
    key = template.name if re.fullmatch("[A-Za-z0-9_-]+", template.name) else json.dumps(template.name)
    show("\n".join([f"[{key}]", *lines]) + "\n")
