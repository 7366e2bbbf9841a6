"""Which boxes of a source the model is shown: fields of view.

How a field is cut into crops is not decided here: that belongs to the weights (``dragonfly_med.views``).
"""

from dragonfly_cli.fields.field import Field, LookPlan, field_mpp, field_view
from dragonfly_cli.fields.frames import spread
from dragonfly_cli.fields.look_plan import check_looking, displayed_field, plan_looks
from dragonfly_cli.fields.montage import arranged

__all__ = [
    "Field",
    "LookPlan",
    "arranged",
    "check_looking",
    "displayed_field",
    "field_mpp",
    "field_view",
    "plan_looks",
    "spread",
]
