"""What a question about a slide costs as the slide grows, and as the budget does.

    python benchmarks/slide_budget.py [--sides 8192 16384 32768] [--budgets 6 12]

Writes pyramid slides that are tissue everywhere (``slide_overview.py``) and asks the built-in model a yes/no question,
whose fields are searched. Of each the processor seconds of the whole way are told, from opening the file to the record:
they hardly depend on what else runs, and the model runs on one thread. Needs tifffile and imagecodecs (``test`` extra).
"""

import argparse
import sys
import tempfile
import time
from contextlib import closing
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from benchmarks.slide_overview import PYRAMIDS, write_slide
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.engine.questions import as_question
from dragonfly_cli.fields import plan_looks
from dragonfly_cli.options import AnswerOptions, LookOptions
from dragonfly_cli.pipeline import as_request
from dragonfly_cli.readers import open_source
from dragonfly_cli.searching import answer_planned

QUESTION = as_question("Is there a tumour?")


def processor_seconds(model: Model, path: Path, budget: int) -> float:
    started = time.process_time()
    looking = LookOptions(budget=budget)
    with closing(open_source(path)) as source:
        plan = plan_looks(source, looking, model.canvas_wh)
        (record,) = answer_planned(model, source, plan, as_request(model, [QUESTION], AnswerOptions(), {}))
    if len(record["fields"]) != budget:
        raise SystemExit(f"{path.name} has fewer than {budget} fields: take a larger side")
    return time.process_time() - started


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[8192, 16384, 32768], help="pixels")
    parser.add_argument("--budgets", type=int, nargs="+", default=[6, 12], help="fields")
    options = parser.parse_args()
    torch.set_num_threads(1)
    model = load_model(find_checkpoint("demo"), "cpu")
    first: dict[int, float] = {}
    with tempfile.TemporaryDirectory() as folder:
        for side in options.sides:
            path = Path(folder) / "slide.svs"
            write_slide(path, side, PYRAMIDS[4])
            for budget in options.budgets:
                seconds = processor_seconds(model, path, budget)
                ratio = seconds / first.setdefault(budget, seconds)
                print(f"side {side}, budget {budget}: {seconds:.1f} s, {ratio:.2f} of that of the first side")
            path.unlink()


if __name__ == "__main__":
    main()
