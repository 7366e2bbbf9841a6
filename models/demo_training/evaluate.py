"""The table of the card: an exported checkpoint answers questions about validation pictures.

Runs the real network and processor of ``dragonfly_med``. The pictures are a fixed number for each label (all of them
where there are fewer), so chance is one over the number of labels or answers in a data set. Questions are asked in
one wording drawn for each picture; an answer counts when it is the expected one, letter by letter.
"""

import argparse
from collections import defaultdict
from pathlib import Path

import numpy as np
import torch
from transformers import DynamicCache

from demo_training import facts
from demo_training.dataset import ImageRow, blank_rows, load_picture, read_rows
from demo_training.encode_crops import choose_rows
from demo_training.off_topic import own_questions
from demo_training.pretrain_encoder import BLANKS
from demo_training.questions import OPEN, Exchange, open_question, yes_no_questions
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor

OPEN_ASKED = ("modality", "organ", "diagnosis", "caption")
YES_NO_PAIRS = 3
LONGEST_ANSWER = 24
COLUMNS = (*OPEN_ASKED, "yes/no", "declined")


class Answerer:
    """Reads a picture once and answers any number of questions about it, greedily."""

    def __init__(self, checkpoint: Path) -> None:
        self.processor = DragonflyProcessor.from_pretrained(checkpoint)
        self.model = DragonflyForCausalLM.from_pretrained(checkpoint, dtype=torch.float32).eval()

    def read(self, pixels: torch.Tensor) -> None:
        """Prefill the image block from crops [29, 3, side, side]."""
        block = torch.tensor([self.processor.image_block()])
        self.cache = DynamicCache(config=self.model.config.text_config)
        self.model(input_ids=block, pixel_values=pixels[None], cache=self.cache, use_cache=True)
        self.image_length = block.shape[1]

    def answer(self, question: str) -> str:
        """The answer as text; the cache then holds the image only, as before."""
        ids = self.processor.text_ids(self.processor.prompt(question))
        answer: list[int] = []
        while len(answer) < LONGEST_ANSWER:
            start = self.cache.get_seq_length()
            positions = torch.arange(start, start + len(ids))[None]
            output = self.model(
                input_ids=torch.tensor([ids]),
                position_ids=positions,
                cache=self.cache,
                use_cache=True,
                logits_to_keep=1,
            )
            ids = [int(output.logits[0, -1].argmax())]
            if ids[0] in self.model.config.stop_token_ids:
                break
            answer += ids
        self.cache.crop(self.image_length - self.cache.get_seq_length())  # a negative number: ids to remove
        return self.processor.decode(answer, skip_special_tokens=True)


def questions_about(row: ImageRow, rng: np.random.Generator) -> list[tuple[str, Exchange]]:
    """(column of the table, question with its expected answer)."""
    asked = [(kind, open_question(kind, row.label, rng)) for kind in OPEN_ASKED]
    asked += [("yes/no", exchange) for exchange in yes_no_questions(row.label, YES_NO_PAIRS, 0, rng)]
    asked.append(("declined", Exchange(str(rng.choice(own_questions())), facts.NOT_TRAINED)))
    return asked


@torch.inference_mode()
def score(answerer: Answerer, data: Path, rows: list[ImageRow], seed: int) -> dict[str, dict[str, list[bool]]]:
    """data set -> column -> whether each answer was right. Only labels with a diagnosis count in that column."""
    rng = np.random.default_rng(seed)
    right: dict[str, dict[str, list[bool]]] = defaultdict(lambda: defaultdict(list))
    for row in rows:
        answerer.read(answerer.processor.pixels(load_picture(data, row)))
        for column, exchange in questions_about(row, rng):
            if column == "diagnosis" and row.label not in facts.DIAGNOSIS:
                column = "declined"
            right[row.dataset][column].append(answerer.answer(exchange.question) == exchange.answer)
    return right


def chance(column: str, rows: list[ImageRow]) -> float | None:
    """Accuracy of the best constant answer on these rows."""
    if column == "yes/no":
        return 0.5
    if column not in OPEN_ASKED:
        return None
    answers = [OPEN[column][row.label] for row in rows if row.label in OPEN[column]]
    return max(answers.count(answer) for answer in set(answers)) / len(answers) if answers else None


def table(right: dict[str, dict[str, list[bool]]], rows: list[ImageRow]) -> str:
    """Markdown: accuracy in per cent, the best constant answer's in brackets."""
    lines = [f"| data set | images | {' | '.join(COLUMNS)} |", "|---" * (len(COLUMNS) + 2) + "|"]
    everything = {column: [hit for by in right.values() for hit in by[column]] for column in COLUMNS}
    for dataset, hits in [*sorted(right.items()), ("all", everything)]:
        within = [row for row in rows if dataset in (row.dataset, "all")]
        cells = [cell(hits[column], chance(column, within)) for column in COLUMNS]
        lines.append(f"| {dataset} | {len(within)} | {' | '.join(cells)} |")
    return "\n".join(lines)


def cell(hits: list[bool], by_chance: float | None) -> str:
    if not hits:
        return "-"
    text = f"{100 * np.mean(hits):.0f}"
    return text if by_chance is None else f"{text} ({100 * by_chance:.0f})"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv")
    parser.add_argument("checkpoint", type=Path, help="the exported folder")
    parser.add_argument("--per-label", type=int, default=12, help="validation pictures of each label")
    parser.add_argument("--seed", type=int, default=4)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    held_out = read_rows(options.data, "val") + blank_rows(BLANKS["val"], "val")
    rows = choose_rows(held_out, options.per_label, np.random.default_rng(options.seed), repeats=1)
    print(table(score(Answerer(options.checkpoint), options.data, rows, options.seed), rows))


if __name__ == "__main__":
    main()
