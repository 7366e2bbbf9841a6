"""Fields of a slide per second: read one after the other, and read ahead while the model is busy.

    python benchmarks/slide_fields.py [--side 8192] [--fields 24] [--rounds 3]

The slide is a mosaic (``mosaic_slide.py``), the model the built-in one on one thread, so that a second core is free
for reading; each field is encoded, as for a question. The two ways take turns. Prints both rates and their ratio.
Needs tifffile and imagecodecs (the ``test`` extra).
"""

import argparse
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed

from benchmarks.mosaic_slide import CELL_PX, generated_pictures, plan_mosaic, write_mosaic
from dragonfly_cli.engine.answering import look_at
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.fields import Field, plan_looks
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import Source, open_source
from dragonfly_cli.readers.ahead import SourceAhead


def seconds(model: Model, source: Source, fields: list[Field]) -> float:
    started = time.perf_counter()
    for field in fields:
        with torch.inference_mode():
            model.network.encode_crops(look_at(model, source, field).pixels[None])
    return time.perf_counter() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="pixels")
    parser.add_argument("--fields", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(find_checkpoint("demo"))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.svs"
        write_mosaic(path, plan_mosaic(options.side, 0, generated_pictures("tumour", 0, CELL_PX)))
        alone: list[float] = []
        ahead: list[float] = []
        for _ in range(options.rounds):
            with closing(open_source(path)) as source:
                fields = plan_looks(source, LookOptions(budget=options.fields), model.canvas_wh).fields
                alone.append(seconds(model, source, fields))
            with closing(open_source(path)) as source:
                boxes = [field.box for field in fields]
                with closing(
                    SourceAhead(source, boxes, lambda size: model.processor.plan(size).canvas_sizes)
                ) as reading:
                    ahead.append(seconds(model, reading, fields))
    count = len(fields)
    print(f"one after the other: {count / min(alone):.2f} fields/s")
    print(f"read ahead: {count / min(ahead):.2f} fields/s")
    print(f"times as many (target 1.8): {min(alone) / min(ahead):.2f}")


if __name__ == "__main__":
    main()
