"""``dragonfly model``: checkpoints on this machine. Thin commands; what they do is in ``dragonfly_cli.store``.

``pull`` is the only command of the program that opens a connection.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from dragonfly_cli.app import App
from dragonfly_cli.option_values import Keep

if TYPE_CHECKING:
    from dragonfly_cli.options import DebugOption, JsonOption

model_app = App("Get, check and remove checkpoints on this machine.", options=("dragonfly_cli.options",))

KeepOption = Annotated[Keep, typer.Option("--keep", help="Which copies to keep: as published, in 4 bit, or both.")]
NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="A name that `dragonfly model list` shows.")]


@model_app.command()
def pull(
    name: Annotated[str, typer.Argument(metavar="NAME", help="med-v2, med-v1, general-v2, general-v1, or ORG/NAME.")],
    keep: KeepOption = Keep.both,
    revision: Annotated[str | None, typer.Option("--revision", help="A branch, tag or commit.")] = None,
    keep_original: Annotated[bool, typer.Option("--keep-original", help="Keep the downloaded files as well.")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Show size and licence, then stop.")] = False,
    debug: DebugOption = False,
) -> None:
    """Download a model and convert it to safetensors. An interrupted call continues where it stopped."""
    from dragonfly_cli.output.terminal import say
    from dragonfly_cli.store.acquire import PullSettings, pull_model

    settings = PullSettings(keep, revision, keep_original, dry_run)
    manifest = pull_model(name, settings, lambda step: say(f"note: {step}"))
    if manifest:
        _tell_where(manifest.id)


@model_app.command("list")
def list_stored(json: JsonOption = False, debug: DebugOption = False) -> None:
    """List the models on this machine, the built-in one included."""
    from dragonfly_cli.output.terminal import show
    from dragonfly_cli.store.report import list_models

    list_models(show, as_json=json)


@model_app.command("show")
def show_model(name: NameArgument, json: JsonOption = False, debug: DebugOption = False) -> None:
    """Show a model's licence, architecture, origin, sizes and hashes."""
    from dragonfly_cli.output.json_text import json_text
    from dragonfly_cli.output.terminal import show
    from dragonfly_cli.store.report import facts_text, model_facts

    facts = model_facts(name)
    show(json_text(facts) if json else facts_text(facts))


@model_app.command()
def verify(
    names: Annotated[
        list[str] | None,
        typer.Argument(metavar="NAME...", help="Names, or folders, of stored models; all when none is given."),
    ] = None,
    debug: DebugOption = False,
) -> None:
    """Compare every file of a model with its recorded hash. Exit code 9 if one has changed."""
    from dragonfly_cli.output.terminal import show
    from dragonfly_cli.store.report import verify_models

    verify_models(names or [], show)


@model_app.command()
def convert(
    folder: Annotated[
        Path, typer.Argument(metavar="DIR", help="The folder of a checkpoint; nothing in it is changed.")
    ],
    name: Annotated[str | None, typer.Option("--name", help="The name to store it under.")] = None,
    keep: KeepOption = Keep.both,
    debug: DebugOption = False,
) -> None:
    """Convert a checkpoint that is on this machine already, and store it. No network is used."""
    from dragonfly_cli.output.terminal import say
    from dragonfly_cli.store.acquire import convert_folder

    manifest = convert_folder(folder, name, keep, lambda step: say(f"note: {step}"))
    _tell_where(manifest.id)


@model_app.command("export")
def export(
    name: NameArgument,
    output: Annotated[Path, typer.Option("--output", "-o", help="The file to write.")],
    copies: Annotated[Keep, typer.Option("--copies", help="Which of its copies to export.")] = Keep.both,
    debug: DebugOption = False,
) -> None:
    """Write a model into one file, for a machine without a network."""
    from dragonfly_cli.output.terminal import say
    from dragonfly_cli.store.pack import export_model

    export_model(name, copies, output, lambda step: say(f"note: {step}"))


@model_app.command("import")
def import_packed(
    file: Annotated[Path, typer.Argument(metavar="FILE", help="A file that `dragonfly model export` wrote.")],
    debug: DebugOption = False,
) -> None:
    """Store an exported model, after checking every byte of it."""
    from dragonfly_cli.output.terminal import say
    from dragonfly_cli.store.pack import import_model

    _tell_where(import_model(file, lambda step: say(f"note: {step}")).id)


@model_app.command("rm")
def remove(name: NameArgument, debug: DebugOption = False) -> None:
    """Delete a model, and whatever an interrupted pull of it has left."""
    from dragonfly_cli.output.terminal import say
    from dragonfly_cli.store.folder import size_in_words
    from dragonfly_cli.store.removal import remove_model

    say(f"note: {size_in_words(remove_model(name))} freed")


def _tell_where(model_id: str) -> None:
    """The folder on stdout, for scripts; how to use it on stderr."""
    from dragonfly_cli.output.terminal import say, show
    from dragonfly_cli.store.folder import model_folder

    show(f"{model_folder(model_id)}\n")
    say(f'note: use it with: dragonfly ask IMAGE "QUESTION?" --model {model_id}')
