"""``verify``: asks again what a record says was asked, and compares answers, probabilities, boxes and prompt.

Compared as well are the size and scale of the image, how several fields became one answer, and the answer of a control.
Not compared is the calibrated probability, which is that of the machine that answered.

The record holds every option that decides the answer. Only where the image is now is taken from this call's command
line or environment.
"""

import math
from collections.abc import Iterator
from contextlib import closing
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dragonfly_cli.engine.checkpoints import Checkpoint
from dragonfly_cli.errors import InputError, NoInputError, ProblemError, UsageError
from dragonfly_cli.fields import Field, arranged
from dragonfly_cli.options import AnswerOptions, OpenOptions
from dragonfly_cli.output.json_text import json_text
from dragonfly_cli.output.record import source_record
from dragonfly_cli.readers import Source, exists, open_source
from dragonfly_cli.readers.inputs import named_input
from dragonfly_cli.recorded import Record, Records, read_back

if TYPE_CHECKING:  # imports torch, which is not needed to tell that a record is none
    from dragonfly_cli.engine.model import Model

# Rounding depends on the machine and on what was asked before: 1e-6 was seen in float32. Numbers of 16 bits have three
# digits.
_TOLERANCE = {"float32": 1e-4}
_TOLERANCE_16_BIT = 2e-2
_SAME_NUMBER = 1e-6  # of lengths and scales, relative: they are worked out alike on every machine

_ABOUT_THE_ANSWER = ("prompt", "aggregate", "abstained")
_HASHES = ("sha256", "quickhash")
_ABOUT_THE_IMAGE = ("kind", "width", "height", "frames", "mpp", "mpp_source")
_ABOUT_A_FIELD = {  # how a difference is told
    "answer": "answers about fields",
    "selected": "boxes",
    "box_um": "boxes in microns",
    "selected_um": "zoomed-in boxes in microns",
    "mpp": "scales of fields",
}
_IN_EVERY_VERSION = ("answer", "selected")  # of those about a field


@dataclass(frozen=True)
class Comparison:
    """One answer of a record and the same question's answer now.

    ``largest_difference`` is that of any option's probability, of the answer or a field's, or of what all options hold
    together; None for a free answer. ``differing`` names what else is not the same. ``now`` is None where the image is
    another one and was not asked about.
    """

    image: str
    question: str | None
    was: str
    now: str | None
    largest_difference: float | None
    tolerance: float
    differing: tuple[str, ...] = ()
    row_options: str = ""  # by which a batch tells rows about one image apart

    @property
    def same(self) -> bool:
        is_near = (self.largest_difference or 0.0) <= self.tolerance
        return self.was == self.now and is_near and not self.differing


def compare_all(records: Records, image: Path | None) -> Iterator[Comparison]:
    """Asks every question again; ``image`` is where the image lies now, if it was moved.

    Raises:
        UsageError: there is more than one image, and only one place.
        NoInputError: the only image is not there.
        ModelError: the model is not here, or is another one.
        ProblemError: the record looked at what is not part of the image.
    """
    if image and records.are_of_several_images:
        raise UsageError(
            "--image is where one image is now, and the records are about several",
            "leave it out, and put the images where the records name them",
        )
    asked = [read_back(*each) for each in records.placed]  # what is wrong is reported before any image is opened

    @cache
    def load(checkpoint: Checkpoint, options: AnswerOptions) -> "Model":
        from dragonfly_cli.engine.model import load_model

        return load_model(checkpoint, options.device, options.quant, options.attn)

    for (_, record), each in zip(records.placed, asked, strict=True):
        opening, looking = each.opening, each.looking
        try:
            opened = _opened(image or each.image, opening)
        except NoInputError:
            if len({other.image for other in asked}) == 1:
                raise
            yield _not_asked(record, "image: it is not there")
            continue
        except InputError as error:
            yield _not_asked(record, f"image: {error.message}")
            continue
        with closing(arranged(opened, looking)) as source:
            if changed := _changed_hash(record["source"], source_record(source)):
                yield _not_asked(record, f"image {changed}")
                continue
            _refuse_other_fields(each.fields, source)
            from dragonfly_cli.pipeline import answer_source, as_request

            model = load(each.checkpoint, each.answering)
            request = as_request(model, [each.question], each.answering, asdict(opening) | asdict(looking))
            (now,) = answer_source(model, source, each.fields, request)
        yield _compare(record, now)


def _opened(image: Path, opening: OpenOptions) -> Source:
    """``PATH#N``, as a batch names a series, is not the path of a file."""
    return open_source(image, opening) if exists(image) else named_input(image).open(opening)


def _changed_hash(was: Record, is_now: Record) -> str | None:
    """The name of the hash by which an image is another one; None of the same image.

    An older version may have recorded one of the two where there are both now.
    """
    known = [name for name in _HASHES if was.get(name) and is_now.get(name)]
    return next((name for name in known or _HASHES if was.get(name) != is_now.get(name)), None)


def _not_asked(record: Record, differing: str) -> Comparison:
    named = record["image"], record["question"], record["answer"]
    return Comparison(*named, None, None, 0.0, (differing,), record.get("row_options") or "")


def _refuse_other_fields(fields: list[Field], source: Source) -> None:
    """Raises ProblemError for what cannot have been looked at; fields at the edge of a slide may reach beyond it."""
    width, height = source.size_wh
    for field in fields:
        left, top, right, bottom = field.box.corners
        inside = left >= 0 and top >= 0 and right <= width and bottom <= height
        if not 0 <= field.frame < source.frames or not (inside or source.kind == "slide"):
            raise ProblemError(
                f"{source.path}: the record looked at what is not part of it", "give a record of this image"
            )


def _compare(record: Record, now: Record) -> Comparison:
    pairs = [(record, now), *zip(record["fields"], now["fields"], strict=False)]
    if record.get("control"):
        pairs.append((record["control"], now["control"]))
    apart = [_distance(was["probabilities"], is_now["probabilities"]) for was, is_now in pairs if was["probabilities"]]
    if record.get("option_mass") is not None and now["option_mass"] is not None:
        apart.append(abs(record["option_mass"] - now["option_mass"]))
    difference = max(apart, default=None)
    return Comparison(
        image=record["image"],
        question=record["question"],
        was=record["answer"],
        now=now["answer"],
        largest_difference=difference,
        tolerance=_tolerance(record, now),
        differing=tuple(_differing(record, now)),
        row_options=record.get("row_options") or "",
    )


def _differing(record: Record, now: Record) -> Iterator[str]:
    """What must be equal and is not; what an older version did not record is passed over."""
    yield from (name for name in _ABOUT_THE_ANSWER if not _alike(record.get(name, now[name]), now[name]))
    was, is_now = record["source"], now["source"]
    yield from (f"image {name}" for name in _ABOUT_THE_IMAGE if not _alike(was.get(name, is_now[name]), is_now[name]))
    for key, name in _ABOUT_A_FIELD.items():
        is_recorded = key in _IN_EVERY_VERSION or any(key in field for field in record["fields"])
        if is_recorded and not _alike(
            [field.get(key, ...) for field in record["fields"]], [f[key] for f in now["fields"]]
        ):
            yield name
    if record.get("control") and record["control"].get("answer") != now["control"]["answer"]:
        yield "answer to the control"
    if "synthesis" in record and not _alike(_untimed(record["synthesis"]), _untimed(now["synthesis"])):
        yield "synthesis"


def _untimed(synthesis: Any) -> Any:
    return synthesis | {"seconds": None} if isinstance(synthesis, dict) else synthesis


def _alike(was: Any, is_now: Any) -> bool:
    """Whether two parts of records are equal, numbers but for their last digits."""
    if isinstance(is_now, dict):
        return isinstance(was, dict) and was.keys() == is_now.keys() and all(_alike(was[k], is_now[k]) for k in is_now)
    if isinstance(is_now, list):
        return isinstance(was, list) and len(was) == len(is_now) and all(map(_alike, was, is_now))
    if isinstance(is_now, float):
        return type(was) in (int, float) and math.isclose(was, is_now, rel_tol=_SAME_NUMBER)
    return bool(was == is_now)


def _tolerance(record: Record, now: Record) -> float:
    """That of the numbers computed now, and where another kind of device answered, of those it says it computed."""
    was, is_now = record["model"], now["model"]
    elsewhere = _kind_of_device(was) != _kind_of_device(is_now)
    return max(_TOLERANCE.get(each["dtype"], _TOLERANCE_16_BIT) for each in ((was, is_now) if elsewhere else (is_now,)))


def _kind_of_device(model: Record) -> str | None:
    """``cuda`` of ``cuda:1``; None where the record does not say."""
    device = model.get("device")
    return None if device is None else str(device).partition(":")[0]


def _distance(was: dict[str, float], now: dict[str, float]) -> float:
    return max(abs(p - now.get(option, 0.0)) for option, p in was.items())


def as_line(compared: Comparison, *, names_image: bool) -> str:
    """``same  QUESTION: ANSWER``, or ``drift`` with both answers; with ``names_image`` the image stands before it."""
    asked = f"{compared.image}: " * names_image + (compared.question or "caption")
    asked += f" [{compared.row_options}]" * bool(compared.row_options)
    is_now = "not asked again" if compared.now is None else f"is {compared.now}"
    told = compared.was if compared.was == compared.now else f"was {compared.was}, {is_now}"
    difference = compared.largest_difference
    notes = [] if difference is None else [f"probabilities at most {difference:.1e} apart"]
    notes += [f"different {name}" for name in compared.differing]
    because = f" ({'; '.join(notes)})" if notes else ""
    return f"{'same' if compared.same else 'drift':<6}{asked}: {told}{because}".replace("\n", " ") + "\n"


def as_report(compared: list[Comparison]) -> str:
    rows = [asdict(each) | {"same": each.same} for each in compared]
    return json_text(rows)


def refuse_drift(compared: list[Comparison], file: Path, torn: str | None) -> None:
    """Raises ProblemError if any answer is another now, or any image, or if the end of the file could not be read."""
    cut = f"; {torn}, is cut off" if torn else ""
    changed = sorted({each.image for each in compared if each.now is None})
    if changed:
        all_of_them = f"{changed[0]} and {len(changed) - 1} more have" if len(changed) > 1 else f"{changed[0]} has"
        raise ProblemError(
            f"{file}: {all_of_them} changed since the answer, or is not there{cut}",
            "verify with the same files, in the folder where they were asked about; --image says where one is now",
        )
    drifted = sum(not each.same for each in compared)
    if drifted:
        raise ProblemError(
            f"{file}: {drifted} of {len(compared)} answers differ now{cut}",
            "compare the record's versions, device, dtype and quantization with this machine's: dragonfly doctor",
        )
    if torn:
        raise ProblemError(
            f"{torn}, is cut off, and was left out; the {len(compared)} before it are the same",
            "repeat the command that was stopped while it wrote them, which goes on from there",
        )
