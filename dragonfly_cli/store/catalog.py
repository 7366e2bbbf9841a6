"""Names of models: the published ones and what is known of them, and which other names a stored model may have.

Source of the table: the model pages of the four repositories.
"""

import re
from dataclasses import dataclass

from dragonfly_cli.errors import ModelError

DEMO = "demo"
_RESERVED = ("auto", DEMO)

# Two dashes stand for the slash in the name of a folder.
_NAME = re.compile(r"(?!.*(--|\.\.))[A-Za-z0-9][A-Za-z0-9._-]{0,95}(/[A-Za-z0-9][A-Za-z0-9._-]{0,95})?")


@dataclass(frozen=True)
class Published:
    """A checkpoint of the authors of Dragonfly."""

    id: str
    repository: str
    licence: str


_LLAMA_3 = "Meta Llama 3 Community License"
_LLAMA_31 = "Llama 3.1 Community License"
_NON_COMMERCIAL = "non-commercial use only"

PUBLISHED = {
    model.id: model
    for model in (
        Published("med-v2", "togethercomputer/Llama-3.1-8B-Dragonfly-Med-v2", f"{_LLAMA_31}; {_NON_COMMERCIAL}"),
        Published("med-v1", "togethercomputer/Llama-3-8B-Dragonfly-Med-v1", f"{_LLAMA_3}; {_NON_COMMERCIAL}"),
        Published("general-v2", "togethercomputer/Llama-3.1-8B-Dragonfly-v2", _LLAMA_31),
        Published("general-v1", "togethercomputer/Llama-3-8B-Dragonfly-v1", _LLAMA_3),
    )
}


def stored_id(name: str) -> str:
    """The name that a model is stored under; a published repository goes by its short name.

    Raises ModelError for a name that no stored model can have.
    """
    for model in PUBLISHED.values():
        if name.lower() == model.repository.lower():
            return model.id
    if name == DEMO:
        raise ModelError(f"model {name}: it is built in, and not stored", "dragonfly model list shows what is stored")
    if not is_name(name):
        raise ModelError(
            f"model {name}: this is not a name for a model",
            f"give one of {', '.join(PUBLISHED)}, ORG/NAME, or a name of letters, digits and . _ -",
        )
    return name


def is_name(name: str) -> bool:
    return bool(_NAME.fullmatch(name)) and name not in _RESERVED


def id_for_folder(folder_name: str) -> str | None:
    """The published model whose repository has this name, so that a clone of it is known again."""
    for model in PUBLISHED.values():
        if model.repository.partition("/")[2].lower() == folder_name.lower():
            return model.id
    return None


def repository_of(model_id: str) -> str:
    """The hub repository of a model; raises ModelError for a name that has none."""
    if model_id in PUBLISHED:
        return PUBLISHED[model_id].repository
    if "/" in model_id:
        return model_id
    raise ModelError(
        f"model {model_id}: there is no such published model", f"give one of {', '.join(PUBLISHED)}, or ORG/NAME"
    )
