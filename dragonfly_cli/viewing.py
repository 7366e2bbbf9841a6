"""``view``: draws what the model will see, from the same readers, fields and crop geometry."""

from pathlib import Path

from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.errors import ModelError
from dragonfly_cli.fields import Field, field_view, plan_fields
from dragonfly_cli.geometry import Box
from dragonfly_cli.options import LookOptions, OpenOptions, Picture
from dragonfly_cli.output.files import check_writable, write_whole
from dragonfly_cli.readers import Source, open_source


def draw_view(image: Path, output: Path, what: Picture, model: str, opening: OpenOptions, looking: LookOptions) -> None:
    """Writes the picture as PNG; raises DragonflyError and writes nothing if it cannot be drawn."""
    check_writable(output)
    source = open_source(image, opening)
    try:
        fields = plan_fields(source, looking)
        picture = _draw(source, fields, what, model)
    finally:
        source.close()
    write_whole(output, lambda part: picture.save(part, format="PNG"))


def _draw(source: Source, fields: list[Field], what: Picture, model: str):
    from dragonfly_cli.output import pictures

    view = field_view(source, fields[0])
    if what is Picture.display:
        return pictures.display_picture(view)
    if what is Picture.fields:
        return pictures.fields_picture(source.view(Box(0, 0, *source.size_wh), fields[0].frame), fields)
    return pictures.crops_picture(view, _plan(view.size, model))


def _plan(size_wh: tuple[int, int], model: str):
    """The crops that ``model`` cuts, from its configuration alone."""
    from dragonfly_med import CheckpointError, DragonflyConfig
    from dragonfly_med.loading import existing_folder
    from dragonfly_med.views import plan_views

    checkpoint = find_checkpoint(model)
    try:
        config = DragonflyConfig.from_pretrained(existing_folder(checkpoint.folder), local_files_only=True)
    except (CheckpointError, OSError) as error:
        raise ModelError(
            f"model {checkpoint.id}: its config.json cannot be read", "give the folder of a Dragonfly checkpoint"
        ) from error
    return plan_views(size_wh, config.crop_side_px, config.architecture)
