"""Does the zoom search find a small lesion? Rankings beside exhaustive search and beside the thumbnail alone.

    python benchmarks/slide_search.py [--slides 6] [--side 12288] [--budget 8] [--lesion tumour] [--model demo]
    python benchmarks/slide_search.py --tiles FOLDER --lesion-tiles FOLDER --cell 224

Slides are mosaics (``mosaic_slide.py``) of benign tissue; half of them hold one lesion at a random place, a square of
0.1, 0.3 or 0.7 % of the tissue in turn. The question is asked of every field of the grid once - that is exhaustive
search - and each ranking then chooses ``budget`` fields, the overview among them, from glances of its own. Printed for
each way:

    sensitivity, specificity   of the answer at P(yes) > 0.5, by the rule of --aggregate (top3-mean)
    auc                        of that P(yes) over the slides: independent of the threshold
    reached                    slides with a lesion, of which a chosen field shows a part
    hit                        slides with a lesion, of which the field that says yes most strongly shows a part; of a
                               field that was looked at twice, the lower P(yes)
    crops                      encoded crops, glances among them, as a share of exhaustive search's

With --ways some of them alone: all but exhaustive search take seconds a slide. With --rank-only nothing but glances is
encoded, and only ``reached`` and ``crops`` are printed. Needs tifffile and imagecodecs (the ``test`` extra).
"""

import argparse
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).parents[1]))  # measure this checkout, whatever is installed
sys.path.insert(0, str(Path(__file__).parents[1] / "models"))

from benchmarks.mosaic_slide import (
    CELL_PX,
    TISSUE_SHARE,
    generated_pictures,
    pictures_of,
    plan_mosaic,
    write_mosaic,
)
from dragonfly_cli.engine.aggregation import aggregate
from dragonfly_cli.engine.answering import FieldAnswer, answer, look_at
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.engine.questions import Question, as_question
from dragonfly_cli.fields import Field, plan_looks
from dragonfly_cli.fields.slide_plan import zoom_fields
from dragonfly_cli.geometry import Box
from dragonfly_cli.option_values import Aggregate, Rank
from dragonfly_cli.options import LookOptions, OpenOptions
from dragonfly_cli.readers import open_source
from dragonfly_cli.searching import Chooser
from dragonfly_med.generation import Sampling

RANKINGS = (Rank.spread, Rank.likeness, Rank.contrast, Rank.odd, Rank.yes, Rank.auto)
WAYS = ("exhaustive", "thumbnail", *map(str, RANKINGS))


@dataclass(frozen=True)
class Outcome:
    """What one way said of one slide."""

    answers: list[FieldAnswer]
    crops: float
    lesion: Box | None
    rule: Aggregate

    @property
    def p_yes(self) -> float:
        told = aggregate(self.answers, self.rule).probabilities
        assert told is not None
        return told["yes"]

    @property
    def first_looks(self) -> list[FieldAnswer]:
        return [each for each in self.answers if each.field.second_look_of is None]

    @property
    def reached(self) -> bool:
        return any(self._shows_lesion(each) for each in self.first_looks)

    @property
    def hit(self) -> bool:
        second = {each.field.second_look_of: _yes(each) for each in self.answers}
        return self._shows_lesion(
            max(self.first_looks, key=lambda each: min(_yes(each), second.get(each.field.id, 1.0)))
        )

    def _shows_lesion(self, each: FieldAnswer) -> bool:
        return self.lesion is not None and each.field.role == "zoom" and each.field.box.meets(self.lesion)


def _yes(each: FieldAnswer) -> float:
    assert each.probabilities is not None
    return each.probabilities["yes"]


def measure(
    model: Model, path: Path, lesion: Box | None, question: Question, options: argparse.Namespace
) -> dict[str, Outcome]:
    """The wanted ways on one slide."""
    source = open_source(path, OpenOptions())
    plan = plan_looks(source, LookOptions(budget=options.budget), model.canvas_wh)
    assert plan.search is not None
    search, overview, rule = plan.search, plan.fields[0], Aggregate(options.aggregate)
    said: dict[Box, FieldAnswer] = {}

    def ask(field: Field) -> FieldAnswer:
        if field.box not in said:
            said[field.box] = answer(model, look_at(model, source, field), question, Sampling())
        return replace(said[field.box], field=field)

    every = zoom_fields(source, search.grid, [search.grid.box(cell) for cell in search.grid.cells()], 1)
    crops_each = ask(overview).plan.crop_count
    all_crops = crops_each * (1 + len(every))

    def outcome(chooser: Chooser, fields: list[Field]) -> Outcome:
        answers = [ask(field) for field in fields]
        answers += [ask(field) for field in chooser.second_looks(question, answers)]
        return Outcome(answers, (crops_each * len(answers) + chooser.glances) / all_crops, lesion, rule)

    outcomes = {}
    for way in options.ways:
        chooser = Chooser(model, source, [overview], search, rule)
        if way == "exhaustive":
            outcomes[way] = outcome(chooser, [overview, *every])
        elif way == "thumbnail":
            outcomes[way] = Outcome([ask(overview)], crops_each / all_crops, lesion, rule)
        else:
            outcomes[way] = outcome(chooser, chooser.fields(question, Rank(way)))
    source.close()
    return outcomes


def measure_ranks(
    model: Model, path: Path, lesion: Box | None, question: Question, budget: int
) -> dict[str, tuple[bool, float]]:
    """For each ranking, whether a chosen field shows the lesion, and the share of exhaustive search's crops."""
    source = open_source(path, OpenOptions())
    plan = plan_looks(source, LookOptions(budget=budget), model.canvas_wh)
    assert plan.search is not None
    crops_each = model.processor.plan(model.canvas_wh).crop_count
    all_crops = crops_each * (1 + len(plan.search.grid.cells()))
    results = {}
    for rank in RANKINGS:
        chooser = Chooser(model, source, plan.fields[:1], plan.search)
        zooms = [field for field in chooser.fields(question, rank) if field.role == "zoom"]
        reached = lesion is not None and any(field.box.meets(lesion) for field in zooms)
        results[str(rank)] = reached, (crops_each * budget + chooser.glances) / all_crops
    source.close()
    return results


def rank_slides(model: Model, question: Question, options: argparse.Namespace) -> None:
    """Slides with a lesion only, because only they can be reached."""
    results: dict[str, list[tuple[bool, float]]] = {str(rank): [] for rank in RANKINGS}
    for number in range(options.slides):
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "slide.svs"
            lesion = write_slide(path, options, 2 * number + 1)
            for rank, result in measure_ranks(model, path, lesion, question, options.budget).items():
                results[rank].append(result)
    print(f"{question.text} {options.slides} slides of {options.side} px, budget {options.budget}")
    for rank, each in results.items():
        reached, crops = zip(*each, strict=True)
        print(f"{rank:<10} reached {np.mean(reached):.2f} crops {np.mean(crops):.3f}", flush=True)


def report(way: str, outcomes: list[Outcome]) -> str:
    """One line of figures for one way over all slides."""
    with_lesion = [each for each in outcomes if each.lesion]
    parts = [f"{way:<10}"]
    ill = [each.p_yes for each in with_lesion]
    well = [each.p_yes for each in outcomes if not each.lesion]
    parts.append(f"sensitivity {np.mean(np.array(ill) > 0.5):.2f} specificity {np.mean(np.array(well) <= 0.5):.2f}")
    parts.append(f"auc {_auc(ill, well):.2f}")
    parts.append(f"reached {_share(with_lesion, lambda each: each.reached):.2f}")
    parts.append(f"hit {_share(with_lesion, lambda each: each.hit):.2f}")
    parts.append(f"crops {np.mean([each.crops for each in outcomes]):.3f}")
    return " ".join(parts)


def _share(outcomes: list[Outcome], holds: Callable[[Outcome], bool]) -> float:
    return float(np.mean([holds(each) for each in outcomes]))


def _auc(ill: list[float], well: list[float]) -> float:
    pairs = [(a > b) + 0.5 * (a == b) for a in ill for b in well]
    return float(np.mean(pairs))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--slides", type=int, default=6, help="half of them with a lesion")
    parser.add_argument("--side", type=int, default=12288, help="pixels")
    parser.add_argument("--budget", type=int, default=8, help="fields, the overview among them")
    parser.add_argument("--lesion", choices=["tumour", "necrosis"], default="tumour")
    parser.add_argument("--cell", type=int, default=CELL_PX, help="side of a cell in pixels, a multiple of 16")
    parser.add_argument(
        "--lesion-percent", type=float, nargs="+", default=[0.1, 0.3, 0.7], help="sizes of the lesions, of the tissue"
    )
    parser.add_argument("--question", default=None, help="the default names the lesion")
    parser.add_argument("--model", default="demo")
    parser.add_argument("--aggregate", choices=list(Aggregate), default="auto")
    parser.add_argument("--ways", choices=WAYS, nargs="+", default=WAYS)
    parser.add_argument("--rank-only", action="store_true", help="glances alone, on slides with a lesion")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--tiles", type=Path, help="folder of pictures of healthy tissue instead of generated ones")
    parser.add_argument("--lesion-tiles", type=Path, help="folder of pictures of the lesion; goes with --tiles")
    options = parser.parse_args()
    if (options.tiles is None) != (options.lesion_tiles is None):
        parser.error("--tiles and --lesion-tiles go together")
    names = {"tumour": "Is there a tumour?", "necrosis": "Is there necrosis?"}
    question = as_question(options.question or names[options.lesion])
    model = load_model(find_checkpoint(options.model))
    if options.rank_only:
        rank_slides(model, question, options)
        return
    outcomes: dict[str, list[Outcome]] = {way: [] for way in options.ways}
    for number in range(options.slides):
        started = time.perf_counter()
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "slide.svs"
            lesion = write_slide(path, options, number)
            for way, outcome in measure(model, path, lesion, question, options).items():
                outcomes[way].append(outcome)
        print(f"slide {number}: {time.perf_counter() - started:.0f} s", file=sys.stderr, flush=True)
    print(f"{question.text} {options.slides} slides of {options.side} px, budget {options.budget}")
    for way in options.ways:
        print(report(way, outcomes[way]))


def write_slide(path: Path, options: argparse.Namespace, number: int) -> Box | None:
    """Slides of odd numbers have a lesion, whose box is returned."""
    seed = options.seed + number
    if options.tiles:
        healthy, ill = (pictures_of(folder, options.cell) for folder in (options.tiles, options.lesion_tiles))
    else:
        healthy, ill = generated_pictures(options.lesion, seed, options.cell)
    has_lesion = number % 2 == 1
    percent = options.lesion_percent[number // 2 % len(options.lesion_percent)]
    lesion_cells = max(1, round((percent / 100 * TISSUE_SHARE) ** 0.5 * options.side / options.cell))
    mosaic = plan_mosaic(options.side, seed, (healthy, ill if has_lesion else healthy), lesion_cells=lesion_cells)
    write_mosaic(path, mosaic)
    return Box(*mosaic.lesion_box) if has_lesion else None


if __name__ == "__main__":
    main()
