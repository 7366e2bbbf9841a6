"""The tables of the card: the real ``dragonfly batch`` command answers questions about validation pictures.

An answer to an open question counts when it is the expected one, letter by letter. Figures are balanced accuracies
within a data set, with 95 % intervals from a bootstrap over patients, tissue groups or pictures.
"""

import argparse
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from PIL import Image

from demo_training import facts
from demo_training.ask_batch import ask_batch, blank
from demo_training.dataset import ImageRow, load_picture, read_rows
from demo_training.generated import generated_rows
from demo_training.intervals import Score, Verdict, score
from demo_training.make_rows import VQA_YES_NO, vqa_exchanges
from demo_training.question_prior import Prior
from demo_training.questions import UNSEEN
from dragonfly_cli.engine.questions import as_question

DIAGNOSIS, DIAGNOSIS_UNSEEN = "What is the diagnosis?", "State the diagnosis."
CAPTION, CAPTION_UNSEEN = "Provide a brief description of the given image.", "Please give a caption."
ORGAN, ORGAN_UNSEEN = "Which organ is shown?", "State the body part."
TUMOUR, TUMOUR_UNSEEN = "Is there a tumour?", "Would you say there is a tumour here?"
NECROSIS, NECROSIS_UNSEEN = "Is there necrosis?", "Is there necrosis anywhere in the field?"
PNEUMONIA, PNEUMONIA_UNSEEN = "Is there pneumonia?", "Could this be pneumonia?"
FEW = 4  # pictures of each label

Shown = Literal["plain", "few", "blank"]  # the last ones are few, too: one colour looks much like the next
Known = dict[str, str]  # label -> right answer


@dataclass(frozen=True)
class Task:
    """A question put to one data set, in a wording that was trained on and in one that was not."""

    dataset: str
    name: str
    wordings: tuple[str, str]
    known: Known


def yes_no(yes: frozenset[str], no: frozenset[str]) -> Known:
    return dict.fromkeys(yes, "Yes") | dict.fromkeys(no, "No")


TASKS = (
    Task("lc25000", "diagnosis (5)", (DIAGNOSIS, DIAGNOSIS_UNSEEN), facts.DIAGNOSIS),
    Task("lc25000", "tumour?", (TUMOUR, TUMOUR_UNSEEN), yes_no(facts.MALIGNANT, facts.BENIGN)),
    Task("oral", "diagnosis (2)", (DIAGNOSIS, DIAGNOSIS_UNSEEN), facts.DIAGNOSIS),
    Task("oral", "tumour?", (TUMOUR, TUMOUR_UNSEEN), yes_no(facts.MALIGNANT, facts.BENIGN)),
    Task("osteosarcoma", "diagnosis (3)", (DIAGNOSIS, DIAGNOSIS_UNSEEN), facts.DIAGNOSIS),
    Task(
        "osteosarcoma",
        "necrosis?",
        (NECROSIS, NECROSIS_UNSEEN),
        yes_no(frozenset({"necrotic_tumour"}), facts.BONE - {"necrotic_tumour"}),
    ),
    Task("cxr_pneumonia", "diagnosis (3)", (DIAGNOSIS, DIAGNOSIS_UNSEEN), facts.DIAGNOSIS),
    Task("cxr_pneumonia", "pneumonia?", (PNEUMONIA, PNEUMONIA_UNSEEN), yes_no(facts.PNEUMONIA, frozenset({"normal"}))),
    Task("mednist", "description (6)", (CAPTION, CAPTION_UNSEEN), facts.CAPTION),
    Task("bccd", "description (1)", (CAPTION, CAPTION_UNSEEN), facts.CAPTION),
    Task("drawn", "description (1)", (CAPTION, CAPTION_UNSEEN), facts.CAPTION),
    Task("vqa_rad", "region (3)", (ORGAN, ORGAN_UNSEEN), facts.ORGAN),
    Task(
        "generated",
        "tumour?",
        (TUMOUR, TUMOUR_UNSEEN),
        yes_no(facts.GENERATED_TUMOUR, facts.GENERATED - facts.GENERATED_TUMOUR),
    ),
    Task(
        "generated",
        "necrosis?",
        (NECROSIS, NECROSIS_UNSEEN),
        yes_no(facts.GENERATED_NECROSIS, facts.GENERATED - facts.GENERATED_NECROSIS),
    ),
)


@dataclass
class Gallery:
    """Validation pictures, written as files, plain or blanked."""

    data: Path
    rows: list[ImageRow]
    folder: Path

    def files(self, dataset: str, shown: Shown) -> dict[str, ImageRow]:
        """Path of each picture of a data set -> its row."""
        target = self.folder / dataset / shown
        target.mkdir(parents=True, exist_ok=True)
        named = {}
        rows = [row for row in self.rows if row.dataset == dataset]
        for number, row in enumerate(rows if shown == "plain" else first_of_each(rows, FEW)):
            for part, picture in enumerate(parts(load_picture(self.data, row), row)):
                file = target / f"{number:04d}_{part}.png"
                (blank(picture) if shown == "blank" else picture).save(file)
                named[str(file)] = row
        return named


def parts(picture: Image.Image, row: ImageRow) -> list[Image.Image]:
    """The picture; of the few and large ones of osteosarcoma the four quarters too, which count as one group."""
    if row.dataset != "osteosarcoma":
        return [picture]
    across, down = picture.width // 2, picture.height // 2
    corners = [(left, top) for top in (0, down) for left in (0, across)]
    return [picture, *(picture.crop((left, top, left + across, top + down)) for left, top in corners)]


def first_of_each(rows: list[ImageRow], count: int) -> list[ImageRow]:
    """At most ``count`` rows of each label of a data set."""
    taken: dict[tuple[str, str], list[ImageRow]] = {}
    for row in rows:
        taken.setdefault((row.dataset, row.label), []).append(row)
    return [row for group in taken.values() for row in group[:count]]


class Examiner:
    """Puts questions to the checkpoint, each data set in one run of the command."""

    def __init__(self, checkpoint: Path, gallery: Gallery) -> None:
        self.checkpoint, self.gallery = checkpoint, gallery

    def ask(self, dataset: str, questions: Sequence[str], shown: Shown = "plain") -> list[tuple[ImageRow, str, str]]:
        files = self.gallery.files(dataset, shown)
        answers = ask_batch(self.checkpoint, [Path(file) for file in files], questions, self.gallery.folder / dataset)
        return [(row, q, answers[Path(file).name, q]) for file, row in files.items() for q in questions]


def group_of(row: ImageRow) -> str:
    """What the interval draws again; osteosarcoma comes from very few patients, and is drawn by picture."""
    return row.path if row.dataset == "osteosarcoma" else row.group


def verdicts(asked: list[tuple[ImageRow, str, str]], question: str, known: Known) -> list[Verdict]:
    return [
        Verdict(known[row.label], answer == known[row.label], group_of(row))
        for row, q, answer in asked
        if q == question and row.label in known
    ]


def label_table(examiner: Examiner) -> list[str]:
    """Balanced accuracy of each task: seen wording, unseen wording, blanked picture, chance; and what is declined."""
    lines = ["| data set | question | pictures (groups) | seen wording | unseen wording | picture blanked | chance |"]
    lines.append("|---|---|---|---|---|---|---|")
    declined: dict[str, list[bool]] = {}
    for dataset in dict.fromkeys(task.dataset for task in TASKS):
        tasks = [task for task in TASKS if task.dataset == dataset]
        plain = examiner.ask(dataset, [q for task in tasks for q in task.wordings])
        blanked = examiner.ask(dataset, [task.wordings[0] for task in tasks], "blank")
        for task in tasks:
            seen, unseen = (score(verdicts(plain, q, task.known)) for q in task.wordings)
            without = score(verdicts(blanked, task.wordings[0], task.known))
            labels = {task.known[row.label] for row, _, _ in plain if row.label in task.known}
            cells = f"{seen.count} ({seen.groups}) | {seen} | {unseen} | {without} | {1 / len(labels):.2f}"
            lines.append(f"| {dataset} | {task.name} | {cells} |")
            print(lines[-1], flush=True)
        strange = examiner.ask(dataset, strange_questions(dataset), "few")
        declined[dataset] = [answer == facts.NOT_TRAINED for _, _, answer in strange]
    lines += ["", "| data set | strange questions declined |", "|---|---|"]
    lines += [f"| {dataset} | {np.mean(hits):.2f} of {len(hits)} |" for dataset, hits in declined.items()]
    return lines


def strange_questions(dataset: str) -> list[str]:
    """Questions to decline that were never trained on; of VQA-RAD's pictures, findings may be asked for.

    The command says yes or no to a question of that form whatever the model would write, and tells ``option_mass``.
    """
    asked = [*UNSEEN.off_topic, *(UNSEEN.unknown if dataset != "vqa_rad" else ())]
    return [question for question in asked if as_question(question).kind != "yesno"]


def blanked_copies(files: dict[str, Path], folder: Path) -> dict[str, Path]:
    folder.mkdir(parents=True, exist_ok=True)
    copies = {}
    for path, file in files.items():
        copies[path] = folder / file.name
        with Image.open(file) as picture:
            blank(picture).save(copies[path])
    return copies


def vqa_table(examiner: Examiner) -> list[str]:
    """VQA-RAD's yes/no questions on pictures never trained on, beside what the question alone tells."""
    own = {
        name: [e for e in asked if e.kind == VQA_YES_NO] for name, asked in vqa_exchanges(examiner.gallery.data).items()
    }
    held_out = [row for row in examiner.gallery.rows if row.dataset == "vqa_rad"]
    names = {row.group for row in held_out}
    train = [(e.question, e.answer) for name, asked in own.items() if name not in names for e in asked]
    found: dict[str, list[Verdict]] = {"model": [], "picture blanked": [], "question alone": []}
    plain = {row.path: Path(file) for file, row in examiner.gallery.files("vqa_rad", "plain").items()}
    files = {"model": plain, "picture blanked": blanked_copies(plain, examiner.gallery.folder / "vqa_blank")}
    every = sorted({e.question for name in names for e in own[name]})
    prior = dict(zip(every, Prior.learn(train).foretell(every), strict=True))
    for row in (row for row in held_out if own[row.group]):
        asked = own[row.group]
        questions = list(dict.fromkeys(e.question for e in asked))
        found["question alone"] += [Verdict("", prior[e.question] == e.answer, row.group) for e in asked]
        for way, named in files.items():
            file = named[row.path]
            answers = ask_batch(examiner.checkpoint, [file], questions, examiner.gallery.folder / "vqa")
            found[way] += [Verdict("", answers[file.name, e.question] == e.answer, row.group) for e in asked]
    lines = ["| VQA-RAD yes/no, pictures never trained on | accuracy |", "|---|---|"]
    scores: dict[str, Score] = {way: score(given) for way, given in found.items()}
    return lines + [f"| {way}, {s.count} questions on {s.groups} pictures | {s} |" for way, s in scores.items()]


TABLES: dict[str, Callable[[Examiner], list[str]]] = {"labels": label_table, "vqa_rad": vqa_table}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("data", type=Path, help="folder that holds train/images.csv and vqa/vqa_rad")
    parser.add_argument("generated", type=Path, help="folder of the generated tissue")
    parser.add_argument("checkpoint", type=Path, help="the exported folder")
    parser.add_argument("work", type=Path, help="folder for pictures and answers")
    parser.add_argument("table", choices=list(TABLES))
    parser.add_argument("--per-label", type=int, help="validation pictures of each label at most, drawn by the seed")
    parser.add_argument("--seed", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    rows = read_rows(options.data, "val") + generated_rows(options.generated, "val")
    shuffled = [rows[i] for i in np.random.default_rng(options.seed).permutation(len(rows))]
    chosen = first_of_each(shuffled, options.per_label or len(shuffled))
    examiner = Examiner(options.checkpoint, Gallery(options.data, chosen, options.work))
    report = TABLES[options.table](examiner)
    (options.work / f"{options.table}.md").write_text("\n".join(report) + "\n", encoding="utf-8")
    print("\n".join(report))


if __name__ == "__main__":
    main()
