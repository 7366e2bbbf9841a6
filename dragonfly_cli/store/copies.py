"""Which copies of a model are kept: ``full`` as published, ``nf4`` with the language model in 4 bit, or both.

The full copy is always made first, and listed; the 4-bit one is made from it and listed when it is whole. One that is
not wanted is taken off the list before it is deleted, so that what an interrupted call has left is on no list.
"""

import shutil
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from dragonfly_cli.errors import DeviceError, ModelError
from dragonfly_cli.option_values import Keep
from dragonfly_cli.output.files import flush_file, flush_folder
from dragonfly_cli.store.folder import check_space
from dragonfly_cli.store.manifest import COPIES, FULL, NF4, Manifest, list_files, write_manifest

# Of an 8B model's weights 84 % become 4 bit and the rest stays: 0.36 of the full copy, and less is never the case.
_NF4_SHARE = 0.4


def refuse_impossible(model_id: str, keep: Keep) -> None:
    """Raises ModelError if only a 4-bit copy is wanted and it cannot be made; to be called before any work."""
    if keep is Keep.nf4 and not has_bitsandbytes():
        raise ModelError(
            f"model {model_id}: no 4-bit copy can be made without bitsandbytes",
            "run: pip install bitsandbytes, or keep the full copy with --keep full",
        )


def nf4_bytes(full_bytes: int, keep: Keep) -> int:
    """Room that the 4-bit copy takes, if it is going to be made."""
    return int(full_bytes * _NF4_SHARE) if _makes_nf4(keep) else 0


def keep_copies(place: Path, manifest: Manifest, keep: Keep, say: Callable[[str], None]) -> Manifest:
    """Makes and drops copies until those that are wanted are there; to be called under the model's lock.

    A full copy that was dropped before is not made again: only a new pull can do that. Without bitsandbytes the full
    copy stays alone.
    """
    tell_missing(manifest, keep, say)
    if _misses_nf4(manifest, keep):
        check_space(place, nf4_bytes(manifest.size_of(FULL), keep), f"the 4-bit copy of {manifest.id}")
        say("writing the 4-bit copy, which takes some minutes")
        manifest = _add_nf4(place, manifest)
    if _drops_full(manifest, keep):
        manifest = manifest.without_copy(FULL)
        write_manifest(place, manifest)
    for rest in _rests(place, manifest):
        shutil.rmtree(rest)
    return manifest


def are_kept(place: Path, manifest: Manifest, keep: Keep) -> bool:
    """Whether there is nothing to make and nothing to delete."""
    return not (_misses_nf4(manifest, keep) or _drops_full(manifest, keep) or _rests(place, manifest))


def tell_missing(manifest: Manifest, keep: Keep, say: Callable[[str], None]) -> None:
    """What was asked for and cannot be made here."""
    if keep is Keep.both and NF4 not in manifest.copies and not has_bitsandbytes():
        say("there will be no 4-bit copy, because bitsandbytes is not installed")
    if keep is not Keep.nf4 and FULL not in manifest.copies:
        say(f"only the 4-bit copy is here; for the full one run: dragonfly model rm {manifest.id}, and get it again")


def _misses_nf4(manifest: Manifest, keep: Keep) -> bool:
    return _makes_nf4(keep) and NF4 not in manifest.copies


def _drops_full(manifest: Manifest, keep: Keep) -> bool:
    return keep is Keep.nf4 and FULL in manifest.copies


def _makes_nf4(keep: Keep) -> bool:
    return keep is not Keep.full and has_bitsandbytes()


def has_bitsandbytes() -> bool:
    return find_spec("bitsandbytes") is not None


def _add_nf4(place: Path, manifest: Manifest) -> Manifest:

    from dragonfly_med import CheckpointError
    from dragonfly_med.memory import is_out_of_memory
    from dragonfly_med.quantization import write_quantized

    for rest in _rests(place, manifest):
        shutil.rmtree(rest)
    try:
        write_quantized(place / FULL, place / NF4)
    except CheckpointError as error:
        raise ModelError(
            f"model {manifest.id}: no 4-bit copy can be made: {error}",
            f"see dragonfly model verify {manifest.id}, or keep the full copy alone with --keep full",
        ) from error
    except RuntimeError as error:
        if not is_out_of_memory(error):
            raise
        raise DeviceError(
            f"model {manifest.id}: no 4-bit copy can be made: out of memory on the GPU",
            "close other programs that use it and run the same command again, on the CPU with CUDA_VISIBLE_DEVICES=",
        ) from error
    files = list_files(place, NF4)
    for file in files:
        flush_file(place / file.path)
    flush_folder(place)
    manifest = manifest.with_copy(files)
    write_manifest(place, manifest)
    return manifest


def _rests(place: Path, manifest: Manifest) -> list[Path]:
    """What an interrupted call has left of copies that the manifest does not list."""
    unlisted = set(COPIES) - set(manifest.copies)
    return [rest for copy in unlisted for rest in (place / copy, *place.glob(f".{copy}.*")) if rest.exists()]
