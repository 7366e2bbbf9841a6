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
from demo_training.question_prior import Prior, priors_of_others
from demo_training.questions import SEEN, Exchange, pick, questions_about, telling_question, vary
from demo_training.variants import MOSAIC, Mosaics, counterparts
from demo_training.variants import vary as vary_picture

PER_LABEL = {  # pictures of each label
    "lc25000": 300,
    "oral": 260,
    "osteosarcoma": 160,
    "cxr_pneumonia": 640,
    "mednist": 200,
    "bccd": 60,
    "vqa_rad": 300,
    "generated": 180,
    "drawn": 250,
}
OFTEN = "generated_normal"  # most of a slide is healthy
TIMES = 3  # so it is shown so many times as often as a label with a focus
MOSAICS = 800  # of whole tiles, and as many of tiles that the field's edges cut
QUESTION_BLOCKS = 2  # blocks of questions a picture
TELLING = 24  # questions on a mosaic that its odd tile decides
MOST_WORDS = 8  # longer answers of VQA-RAD are left out
USUAL = 12  # times that each yes/no question of VQA-RAD comes with what is usually answered
LEFT_OUT, EXCHANGED = 0.1, 0.25  # shares of its words then
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
    comes again in other words, with answers that are drawn as questions of those words are usually answered on other
    pictures.
    """

    asked: dict[str, list[Exchange]]
    usual: dict[str, Prior]
    vocabulary: list[str]  # the words of all yes/no questions, each as often as it occurs

    @classmethod
    def of(cls, data: Path, split: str) -> "OwnQuestions":
        asked = {name: own for name, own in vqa_exchanges(data).items() if vqa_split(name) == split}
        yes_no = {name: [(e.question, e.answer) for e in own if e.kind == VQA_YES_NO] for name, own in asked.items()}
        vocabulary = [word for own in yes_no.values() for question, _ in own for word in question.split()]
        return cls(asked, priors_of_others(yes_no), vocabulary)

    def draw(self, picture: str, rng: np.random.Generator) -> list[Exchange]:
        """In one wording or another."""
        asked = [Exchange(vary(e.question, rng), e.answer, e.kind) for e in self.asked[picture]]
        yes_no = [e.question for e in self.asked[picture] if e.kind == VQA_YES_NO] * USUAL
        reworded = [self._reword(question, rng) for question in yes_no]
        for question, chance in zip(reworded, self.usual[picture].p_yes(reworded), strict=True):
            asked.append(Exchange(vary(question, rng), "Yes" if rng.random() < chance else "No", "vqa_usual"))
        return asked

    def _reword(self, question: str, rng: np.random.Generator) -> str:
        """Some words left out, some exchanged for those of other questions."""
        kept = [word for word in question.split() if rng.random() >= LEFT_OUT]
        words = [pick(self.vocabulary, rng) if rng.random() < EXCHANGED else word for word in kept]
        return " ".join(words) or question


def exchanges(row: ImageRow, own: OwnQuestions, rng: np.random.Generator) -> list[Exchange]:
    """The questions on one picture, those of VQA-RAD among them."""
    if row.group == MOSAIC:
        return [telling_question(row, counterparts(row.label), SEEN, rng) for _ in range(TELLING)] + questions_about(
            row, SEEN, rng
        )
    asked = [exchange for _ in range(QUESTION_BLOCKS) for exchange in questions_about(row, SEEN, rng)]
    if row.dataset == "vqa_rad":
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
