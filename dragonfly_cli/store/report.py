"""``model list``, ``show`` and ``verify``: what is on this machine, and whether it is still what it was."""

import json
from collections.abc import Callable
from typing import Any

from dragonfly_cli.errors import ModelError, ProblemError
from dragonfly_cli.output.terminal import info_text, say
from dragonfly_cli.store.built_in import ARCHITECTURE, demo_folder, demo_manifest
from dragonfly_cli.store.catalog import DEMO, stored_id
from dragonfly_cli.store.folder import disk_errors, model_folder, model_folders, readable
from dragonfly_cli.store.manifest import Manifest, find_drift, read_manifest


def stored_models() -> list[Manifest]:
    """Every whole model, in the order of their folders' names."""
    return [manifest for folder in model_folders() if (manifest := read_manifest(folder))]


def find_model(name: str) -> Manifest:
    """The manifest of a stored model; raises ModelError if it is not on this machine."""
    manifest = read_manifest(model_folder(stored_id(name)))
    if manifest is None:
        raise ModelError(f"model {name}: it is not on this machine", "dragonfly model list shows those that are")
    return manifest


def model_rows() -> list[dict[str, Any]]:
    """One row a model; those that were begun and not finished are told apart."""
    rows: list[dict[str, Any]] = [
        {"id": DEMO, "status": "built in", "architecture": ARCHITECTURE, "copies": [], "size": None}
    ]
    for folder in model_folders():
        manifest = read_manifest(folder)
        if manifest:
            rows.append(_row(manifest))
        elif any(folder.iterdir()):
            name = folder.name.replace("--", "/")
            rows.append({"id": name, "status": "not finished", "architecture": None, "copies": [], "size": None})
    return rows


def _row(manifest: Manifest) -> dict[str, Any]:
    facts = {"architecture": manifest.architecture, "copies": manifest.copies, "size": manifest.size}
    return {"id": manifest.id, "status": "ready", **facts, "licence": manifest.licence}


def rows_text(rows: list[dict[str, Any]]) -> str:
    width = max(len(row["id"]) for row in rows)
    return "".join(f"{row['id']:<{width}}  {_row_text(row)}\n" for row in rows)


def _row_text(row: dict[str, Any]) -> str:
    size = None if row["size"] is None else readable(row["size"])
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
    return info_text({**facts, "copies": {copy: readable(size) for copy, size in facts["copies"].items()}})


def facts_json(facts: Any) -> str:
    return json.dumps(facts, ensure_ascii=False, indent=2) + "\n"


def verify_models(names: list[str], show: Callable[[str], None]) -> None:
    """Reads every file of the named models, or of all; a line for each model and each file that has changed.

    Raises ProblemError if any has.
    """
    manifests = [find_model(name) for name in names] if names else stored_models()
    if not manifests:
        say("note: no model is stored on this machine")
    drifted = [manifest.id for manifest in manifests if not _verify(manifest, show)]
    if drifted:
        raise ProblemError(
            f"{', '.join(drifted)}: not as stored",
            f"remove it and get it again: dragonfly model rm {drifted[0]}",
        )


def _verify(manifest: Manifest, show: Callable[[str], None]) -> bool:
    folder = model_folder(manifest.id)
    with disk_errors(folder):
        drift = find_drift(folder, manifest)
    state = "changed" if drift else "unchanged"
    show(f"{manifest.id}: {state}, {len(manifest.files)} files, {readable(manifest.size)}\n")
    for line in drift:
        show(f"{manifest.id}: {line}\n")
    return not drift
