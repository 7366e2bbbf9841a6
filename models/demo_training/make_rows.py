"""Stage 2: pictures and questions about them, as a folder of images and rows.jsonl.

Every row has ``image`` (relative to the folder), ``question``, ``answer``, ``group`` (patient, tissue or picture, which
a split must not divide) and ``split``, and says which data set and kind of question it is from. It is the form that
users' own training data has.
"""

import argparse
import json
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import Image

from demo_training.dataset import ImageRow, load_picture, read_rows, vqa_entries, vqa_split
from demo_training.generated import generated_rows
from demo_training.question_prior import usual_answers
from demo_training.questions import SEEN, Exchange, questions_about, telling_question, vary
from demo_training.variants import MOSAIC, Mosaics, counterparts
from demo_training.variants import vary as vary_picture

PER_LABEL = {  # pictures of each label
    "lc25000": 260,
    "oral": 260,
    "osteosarcoma": 160,
    "cxr_pneumonia": 380,
    "mednist": 60,
    "bccd": 60,
    "vqa_rad": 130,
    "generated": 180,
    "drawn": 100,
}
OFTEN = "generated_normal"  # most of a slide is healthy
TIMES = 3  # so it is shown so many times as often as a label with a focus
MOSAICS = 800  # of whole tiles, and as many of tiles that the field's edges cut
QUESTION_BLOCKS = 2  # blocks of questions a picture
TELLING = 24  # questions on a mosaic that its odd tile decides
MOST_WORDS = 8  # longer answers of VQA-RAD are left out
VQA_YES_NO = "vqa_yes_no"  # the kind of its yes/no questions
IMAGES = "images"  # their folder
QUALITY = 93


def choose(rows: list[ImageRow], rng: np.random.Generator) -> list[ImageRow]:
    """As many rows of each label as ``PER_LABEL`` says, each picture as often as the others, in random order."""
    by_label: dict[tuple[str, str], list[ImageRow]] = defaultdict(list)
    for row in rows:
        by_label[row.dataset, row.label].append(row)
    chosen: list[ImageRow] = []
    for (dataset, label), group in by_label.items():
        wanted = PER_LABEL[dataset] * (TIMES if label == OFTEN else 1)
        rounds = -(-wanted // len(group))
        order = [group[i] for _ in range(rounds) for i in rng.permutation(len(group))]
        chosen += order[:wanted]
    return [chosen[i] for i in rng.permutation(len(chosen))]


def vqa_exchanges(data: Path) -> dict[str, list[Exchange]]:
    """VQA-RAD's own questions by picture, yes and no spelt alike."""
    by_picture: dict[str, list[Exchange]] = defaultdict(list)
    for entry in vqa_entries(data):
        answer = str(entry["answer"]).strip().rstrip(".")
        answer = answer.capitalize() if answer.lower() in ("yes", "no") else answer[:1].upper() + answer[1:]
        if len(answer.split()) <= MOST_WORDS:
            kind = VQA_YES_NO if answer in ("Yes", "No") else "vqa_open"
            by_picture[entry["image_name"]].append(Exchange(entry["question"].strip(), answer, kind))
    return by_picture


def pictures(data: Path, rows: list[ImageRow], rng: np.random.Generator) -> Iterator[tuple[Image.Image, ImageRow]]:
    """Varied pictures, then mosaics."""
    for row in choose(rows, rng):
        yield vary_picture(load_picture(data, row), row, rng)
    mosaics = Mosaics(data, rows, rng)
    for _ in range(MOSAICS):
        yield mosaics.draw()
        yield mosaics.draw_cut()


@dataclass(frozen=True)
class OwnQuestions:
    """What VQA-RAD asks about its own pictures of one split.

    It has few pictures with ten questions each, and a network learns their answers by heart. So each yes/no question
    comes twice: once with its answer, once with one that is drawn as questions of its words are usually answered on
    other pictures.
    """

    asked: dict[str, list[Exchange]]
    usual: dict[str, dict[str, float]]

    @classmethod
    def of(cls, data: Path, split: str) -> "OwnQuestions":
        asked = {name: own for name, own in vqa_exchanges(data).items() if vqa_split(name) == split}
        yes_no = {name: [(e.question, e.answer) for e in own if e.kind == VQA_YES_NO] for name, own in asked.items()}
        return cls(asked, usual_answers(yes_no))

    def draw(self, picture: str, rng: np.random.Generator) -> list[Exchange]:
        """In one wording or another."""
        drawn = [Exchange(vary(e.question, rng), e.answer, e.kind) for e in self.asked[picture]]
        for question, chance in self.usual[picture].items():
            drawn.append(Exchange(vary(question, rng), "Yes" if rng.random() < chance else "No", "vqa_usual"))
        return drawn


def exchanges(row: ImageRow, own: OwnQuestions, rng: np.random.Generator) -> list[Exchange]:
    """The questions on one picture, those of VQA-RAD among them."""
    if row.group == MOSAIC:
        return [telling_question(row, counterparts(row.label), SEEN, rng) for _ in range(TELLING)] + questions_about(
            row, SEEN, rng
        )
    asked = [exchange for _ in range(QUESTION_BLOCKS) for exchange in questions_about(row, SEEN, rng)]
    if row.dataset == "vqa_rad":
        asked = asked[: len(asked) // QUESTION_BLOCKS]
        asked += own.draw(row.group, rng)
    return [asked[i] for i in rng.permutation(len(asked))]


def write_rows(options: argparse.Namespace) -> None:
    rng = np.random.default_rng(options.seed)
    own = OwnQuestions.of(options.data, "train")
    rows = read_rows(options.data, "train") + generated_rows(options.generated, "train")
    (options.out / IMAGES).mkdir(parents=True, exist_ok=True)
    number = 0
    with (options.out / "rows.jsonl").open("w", encoding="utf-8") as out:
        for number, (picture, row) in enumerate(pictures(options.data, rows, rng), 1):
            image = f"{IMAGES}/{number:05d}.jpg"
            picture.save(options.out / image, quality=QUALITY)
            about = {"group": row.group, "split": row.split, "dataset": row.dataset, "label": row.label}
            asking = np.random.default_rng([options.seed, number])  # other questions leave the pictures as they are
            for e in exchanges(row, own, asking):
                line = {"image": image, "question": e.question, "answer": e.answer, **about, "kind": e.kind}
                out.write(json.dumps(line) + "\n")
    print(f"{number} pictures")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("generated", type=Path, help="folder of the generated tissue")
    parser.add_argument("out", type=Path, help="folder for rows.jsonl and its pictures")
    parser.add_argument("--seed", type=int, default=3)
    options = parser.parse_args()
    write_rows(options)


if __name__ == "__main__":
    main()
