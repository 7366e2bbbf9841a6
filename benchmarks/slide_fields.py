"""Fields of a slide per second: read one after the other, and read ahead while the model is busy.

    python benchmarks/slide_fields.py [--side 8192] [--fields 24] [--rounds 3]

The slide is a mosaic (``mosaic_slide.py``). Two models take turns with both ways of reading. The built-in one encodes
each field, as for a question, on one thread, so that a second core is free for reading. The other stands for a card
that takes as long for a field as reading it takes here: a pause of that length. There reading ahead can double the
rate, and nowhere more; how much it can do for the built-in model is printed beside what it does.
Needs tifffile and imagecodecs (the ``test`` extra).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from benchmarks.mosaic_slide import CELL_PX, generated_pictures, plan_mosaic, write_mosaic
from dragonfly_cli.engine.answering import Look, look_at
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.fields import Field, plan_looks
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers import Source, open_source
from dragonfly_cli.readers.ahead import read_in_turn

Step = Callable[[Look], None]


def one_by_one(model: Model, source: Source, fields: list[Field], step: Step) -> None:
    for field in fields:
        step(look_at(model, source, field))


def read_ahead(model: Model, source: Source, fields: list[Field], step: Step) -> None:
    for look in read_in_turn(lambda field: look_at(model, source, field), fields):
        step(look.result())


def both_ways(model: Model, path: Path, fields: list[Field], step: Step, rounds: int) -> tuple[float, float]:
    """Seconds of looking at all fields one after the other, and read ahead: the least of all rounds."""
    least = [float("inf")] * 2
    for _ in range(rounds):
        for number, way in enumerate((one_by_one, read_ahead)):
            with closing(open_source(path)) as source:
                started = time.perf_counter()
                way(model, source, fields, step)
                least[number] = min(least[number], time.perf_counter() - started)
    return least[0], least[1]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=8192, help="pixels")
    parser.add_argument("--fields", type=int, default=24)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(find_checkpoint("demo"))

    @torch.inference_mode()
    def encode(look: Look) -> None:
        model.network.encode_crops(look.pixels[None])

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "slide.svs"
        write_mosaic(path, plan_mosaic(options.side, 0, generated_pictures("tumour", 0, CELL_PX)))
        with closing(open_source(path)) as source:
            fields = plan_looks(source, LookOptions(budget=options.fields), model.canvas_wh).fields
        reading, _ = both_ways(model, path, fields, lambda look: None, options.rounds)
        alone, ahead = both_ways(model, path, fields, encode, options.rounds)
        pause = reading / len(fields)
        alone_card, ahead_card = both_ways(model, path, fields, lambda look: time.sleep(pause), options.rounds)
    count = len(fields)
    most = alone / max(reading, alone - reading)
    print(f"reading alone: {count / reading:.2f} fields/s")
    print(f"the built-in model, one after the other: {count / alone:.2f} fields/s")
    print(f"the built-in model, read ahead: {count / ahead:.2f} fields/s")
    print(f"the built-in model, times as many (at most {most:.2f}): {alone / ahead:.2f}")
    print(f"a card as fast as reading, times as many (target 1.8, at most 2): {alone_card / ahead_card:.2f}")


if __name__ == "__main__":
    main()
