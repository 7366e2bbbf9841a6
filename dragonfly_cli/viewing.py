"""``view``: draws what the model will see, from the same readers, fields, search and crop geometry.

The fields of a searched slide are those that ``ask`` chooses for the question, or ``caption`` where there is none.
Weights are loaded for that search, and for a question; where they are, the crops that the model zooms in on are marked.
"""

from collections.abc import Callable
from contextlib import closing
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_cli.engine.checkpoints import Checkpoint, canvas_of, crops_of, find_checkpoint
from dragonfly_cli.engine.questions import Question, caption_question
from dragonfly_cli.fields import (
    Field,
    LookPlan,
    arranged,
    check_looking,
    displayed_field,
    field_view,
    plan_looks,
)
from dragonfly_cli.fields.readable import readable
from dragonfly_cli.option_values import Aggregate, Picture, Rank
from dragonfly_cli.options import LookOptions, OpenOptions, ViewOptions
from dragonfly_cli.output.files import STDOUT, check_png, check_unread, write_whole
from dragonfly_cli.output.streams import check_no_terminal, write_bytes
from dragonfly_cli.output.terminal import say
from dragonfly_cli.readers import Source, View, open_source
from dragonfly_cli.readers.source import files_of

if TYPE_CHECKING:  # these import torch and Pillow
    from PIL.Image import Image

    from dragonfly_cli.engine.model import Model
    from dragonfly_cli.searching import Chooser
    from dragonfly_med.views import ViewPlan

    PlanOf = Callable[[tuple[int, int]], ViewPlan]


def draw_view(
    image: Path,
    output: Path,
    questions: list[Question],
    viewing: ViewOptions,
    opening: OpenOptions,
    looking: LookOptions,
) -> None:
    """Writes the picture as PNG, for ``-`` onto stdout; raises DragonflyError, and writes nothing, if it cannot."""
    if output == STDOUT:
        check_no_terminal()
    else:
        check_png(output)
    check_looking(looking)
    checkpoint = find_checkpoint(viewing.model)
    with closing(arranged(open_source(image, opening), looking)) as source:
        check_unread((output,), (*files_of(source), looking.roi))
        picture = _draw(source, looking, questions, viewing, checkpoint)
        warnings = list(source.warnings)
    _write(picture, output)
    for warning in warnings:
        say(f"warning: {warning}")


def _write(picture: "Image", output: Path) -> None:
    if output != STDOUT:
        write_whole(output, lambda part: picture.save(part, format="PNG"))
        return
    encoded = BytesIO()
    picture.save(encoded, format="PNG")
    write_bytes(encoded.getvalue())


def _draw(
    source: Source, looking: LookOptions, questions: list[Question], viewing: ViewOptions, checkpoint: Checkpoint
) -> "Image":
    from dragonfly_cli.output import pictures

    canvas_wh = canvas_of(checkpoint)
    if viewing.what is Picture.display:
        return pictures.display_picture(field_view(source, displayed_field(source, looking, canvas_wh)))
    plan = plan_looks(source, looking, canvas_wh)
    searches = plan.search is not None and plan.search.rank is not Rank.spread
    model = _load(checkpoint, viewing) if questions or searches else None
    asked = questions or [caption_question()]
    fields = _chosen(model, source, plan.begun(), asked, viewing.aggregate) if model else plan.fields
    if viewing.what is Picture.fields:
        first_of = {field.frame: field for field in reversed(fields)}
        shown = [field for field in fields if first_of[field.frame] is field]
        sheets = readable(source, shown, lambda field: _fields_of(source, field.frame, fields), source.warnings)
        return pictures.sheet_of(list(sheets))
    plan_of = model.processor.plan if model else _configured(checkpoint)
    drawn = readable(source, fields, lambda field: _crops(field_view(source, field), plan_of, model), source.warnings)
    return pictures.sheet_of(list(drawn))


def _fields_of(source: Source, frame: int, fields: list[Field]) -> "Image":
    from dragonfly_cli.output.pictures import fields_picture

    return fields_picture(source, frame, [field for field in fields if field.frame == frame])


def _load(checkpoint: Checkpoint, viewing: ViewOptions) -> "Model":
    from dragonfly_cli.engine.model import load_model

    return load_model(checkpoint, viewing.device, viewing.quant, viewing.attn)


def _chosen(model: "Model", source: Source, plan: LookPlan, questions: list[Question], rule: Aggregate) -> list[Field]:
    """The fields of all questions, each of them once, and those that are looked at again."""
    if plan.search is None:
        return plan.fields
    from dragonfly_cli.searching import Chooser

    chooser = Chooser(model, source, plan.certain, plan.search, rule)
    chosen: list[Field] = []
    for fields, group in chooser.groups(questions, plan.search.rank):
        chosen += fields
        for question in group:
            chosen += _looked_at_again(model, source, chooser, question, fields)
    return list({field.box: field for field in chosen}.values())


def _looked_at_again(
    model: "Model", source: Source, chooser: "Chooser", question: Question, fields: list[Field]
) -> list[Field]:
    """The second looks, which depend on what is answered about each field."""
    if not chooser.search_for(question).second_looks:
        return []
    from dragonfly_cli.engine.answering import answer, look_at
    from dragonfly_med.generation import Sampling

    seen = [answer(model, look_at(model, source, field), question, Sampling()) for field in fields]
    return chooser.second_looks(question, seen)


def _crops(view: View, plan_of: "PlanOf", model: "Model | None") -> "Image":
    from dragonfly_cli.output.pictures import crops_picture
    from dragonfly_med.crops import draw_canvases

    plan = plan_of(view.size)
    canvases = draw_canvases(view, plan)
    return crops_picture(canvases, plan, _zoomed_in(model, canvases, plan) if model else [])


def _zoomed_in(model: "Model", canvases: "list[Image]", plan: "ViewPlan") -> list[int]:
    """The high crops that v1 reads at full length, by number; v2 reads all of them in the same way."""
    if model.identity.architecture != "dragonfly-v1":
        return []
    import torch

    from dragonfly_med.crops import cut_crops, normalize

    pixels = torch.from_numpy(normalize(cut_crops(canvases, plan)))[None]
    with torch.inference_mode():
        selected: list[int] = model.network.select_crops(pixels.to(model.device))[0].tolist()
    return selected


def _configured(checkpoint: Checkpoint) -> "PlanOf":
    """The crops that a model cuts, without its weights; raises ModelError."""
    from dragonfly_med.views import plan_views

    crops = crops_of(checkpoint)
    return lambda size_wh: plan_views(size_wh, *crops)
