"""``model list``, ``show`` and ``verify``: what is on this machine, and whether it is still what it was."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

from dragonfly_cli.errors import ModelError, ProblemError
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.output.terminal import info_text, say
from dragonfly_cli.store.built_in import ARCHITECTURE, demo_folder, demo_manifest
from dragonfly_cli.store.catalog import DEMO, is_name, stored_id
from dragonfly_cli.store.folder import (
    disk_errors,
    model_folder,
    model_folders,
    model_in,
    models_folder,
    size_in_words,
)
from dragonfly_cli.store.manifest import MANIFEST, Manifest, find_drift, read_manifest
from dragonfly_cli.user_folders import expanded

Known = Manifest | ModelError | None  # whole, not readable and why, begun and not finished


def stored_models() -> dict[str, Known]:
    """Everything that lies in the store by its name, in the order of the folders."""
    return {model_in(folder): _known(folder) for folder in model_folders()}


def _known(folder: Path) -> Known:
    try:
        return read_manifest(folder)
    except ModelError as error:
        return error


def find_model(name: str) -> Manifest:
    """The manifest of a stored model; raises ModelError if it is not on this machine."""
    manifest = read_manifest(model_folder(stored_id(name)))
    if manifest is None:
        raise ModelError(f"model {name}: it is not on this machine", "dragonfly model list shows those that are")
    return manifest


def list_models(show: Callable[[str], None], *, as_json: bool) -> None:
    """One row a model; those that were begun and not finished are told apart, and those that cannot be read.

    Raises ModelError behind the list where there is one of the last.
    """
    stored = stored_models()
    built_in: dict[str, Any] = {
        "id": DEMO,
        "status": "built in",
        "architecture": ARCHITECTURE,
        "copies": [],
        "size": None,
    }
    rows = [built_in, *(_row(name, known) for name, known in stored.items())]
    show(json_text(rows) if as_json else _rows_text(rows))
    if damaged := {name: known for name, known in stored.items() if isinstance(known, ModelError)}:
        first = next(iter(damaged.values()))
        raise ModelError("; ".join(error.message for error in damaged.values()), first.hint)


def _row(name: str, known: Known) -> dict[str, Any]:
    if isinstance(known, Manifest):
        facts = {"architecture": known.architecture, "copies": known.copies, "size": known.size}
        return {"id": known.id, "status": "ready", **facts, "licence": known.licence}
    status = "damaged" if known else "not finished"
    return {"id": name, "status": status, "architecture": None, "copies": [], "size": None}


def _rows_text(rows: list[dict[str, Any]]) -> str:
    width = max(len(row["id"]) for row in rows)
    return "".join(f"{row['id']:<{width}}  {_row_text(row)}\n" for row in rows)


def _row_text(row: dict[str, Any]) -> str:
    size = None if row["size"] is None else size_in_words(row["size"])
    parts = [row["status"], row["architecture"], " + ".join(row["copies"]), size, row.get("licence")]
    return "  ".join(part for part in parts if part)


def model_facts(name: str) -> dict[str, Any]:
    """Everything that is known of a stored model, or of the built-in one."""
    manifest = demo_manifest() if name == DEMO else find_model(name)
    place = demo_folder() if name == DEMO else model_folder(manifest.id)
    return {
        "id": manifest.id,
        "licence": manifest.licence,
        "architecture": manifest.architecture,
        "parameters": manifest.parameters,
        "repository": manifest.repository,
        "revision": manifest.revision,
        "made_with": manifest.made_with,
        "folder": str(place),
        "copies": {copy: manifest.size_of(copy) for copy in manifest.copies},
        "files": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in manifest.files],
        "original": [{"path": file.path, "size": file.size, "sha256": file.sha256} for file in manifest.original],
    }


def facts_text(facts: dict[str, Any]) -> str:
    return info_text({**facts, "copies": {copy: size_in_words(size) for copy, size in facts["copies"].items()}})


def verify_models(names: list[str], show: Callable[[str], None]) -> None:
    """Reads every file of the named models, or of all stored; a line for each model and each file that has changed.

    A name may also be that of a folder, wherever it lies, with a model as the store keeps it.
    Raises ProblemError if any file has changed, ModelError for what is no such model.
    """
    if names:
        folders = {name: _folder_of(name) for name in names}
    else:
        folders = {name: model_folder(name) for name, known in stored_models().items() if known}
    if not folders:
        say("note: no model is stored on this machine")
    drifted = [name for name, folder in folders.items() if not _verify(name, folder, show)]
    if drifted:
        is_here = folders[drifted[0]].parent == models_folder()
        remedy = f"remove it and get it again: dragonfly model rm {drifted[0]}" if is_here else "copy it here again"
        raise ProblemError(f"{', '.join(drifted)}: not as stored", remedy)


def _folder_of(name: str) -> Path:
    """Of a stored model, or else a folder of that name, as ``--model`` takes them."""
    is_stored = is_name(name) and read_manifest(model_folder(stored_id(name)))
    if is_stored or name == DEMO or not expanded(name).is_dir():
        return model_folder(find_model(name).id)
    if read_manifest(expanded(name)) is None:
        raise ModelError(
            f"model {name}: there is no {MANIFEST} in it to compare its files with",
            "give a folder that dragonfly model pull or convert has printed",
        )
    return expanded(name)


def _verify(name: str, folder: Path, show: Callable[[str], None]) -> bool:
    manifest = _known(folder)
    if not isinstance(manifest, Manifest):
        show(f"{name}: damaged, its manifest cannot be read\n")
        return False
    with disk_errors(folder):
        drift = find_drift(folder, manifest)
    state = "changed" if drift else "unchanged"
    show(f"{manifest.id}: {state}, {len(manifest.files)} files, {size_in_words(manifest.size)}\n")
    for line in drift:
        show(f"{manifest.id}: {line}\n")
    return not drift
