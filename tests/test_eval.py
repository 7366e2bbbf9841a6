"""Scores of answers that are known: the metrics against plain definitions of them, and the real command."""

import csv
import json
import shutil
from itertools import combinations, product
from math import isnan
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from make_files import write_dicom, write_png
from run_dragonfly import Outcome, dragonfly, expect_error
from tuning_data import TINY, taught, write_rows

from dragonfly_cli.evaluation.intervals import Estimate, estimates
from dragonfly_cli.evaluation.metrics import Columns, Scored, as_compared, metrics_of, value
from dragonfly_cli.evaluation.options import Metric

QUESTION = "Is it striped?"
FREE = "What is it?"
WORDS = st.lists(st.sampled_from(["a", "mass", "in", "lung", "no"]), max_size=6)


def answered(reference: str, answer: str = "", p_yes: float | None = None, **more: Any) -> Scored:
    kind = "open" if p_yes is None else "yesno"
    known = {"kind": kind, "question": QUESTION, "abstained": False, "group": 0}
    return Scored(reference=reference, answer=answer, p_yes=p_yes, **(known | more))


def decided(p_yes: float, is_yes: bool, **more: Any) -> Scored:
    return answered("Yes" if is_yes else "No", "Yes" if p_yes > 0.5 else "No", p_yes, **more)


def measured(metric: Metric, *scored: Scored) -> float:
    return value(metric, Columns.of(scored), np.ones(len(scored)))


def estimated(metric: Metric, *scored: Scored) -> Estimate:
    return estimates(Columns.of(scored), [each.group for each in scored], [metric])[metric]


@pytest.mark.parametrize(
    ("answer", "reference", "right"),
    [
        ("Yes.", "yes", True),
        (" Lung  adenocarcinoma", "lung adenocarcinoma.", True),
        ("normal", "no", False),
        ("No finding", "No", False),
        ("no", "no pneumonia", False),
        ("2", "2.", True),
        ("", "", True),
        ('"Yes!"', "**yes**", True),
        ("HER2+", "HER2-", False),
        ("Positive (+)", "positive (-)", False),
        ("< 5 mm", "> 5 mm", False),
        (".5", "5", False),
        ("1.0", "1", False),
        ("50", "50%", False),
        ("cafe\u0301-au-lait", "Caf\u00e9\u2011au\u2011lait", True),
        ("Crohn\u2019s disease", "Crohn's disease", True),
        ("5 mm\u00b2", "5 mm2", True),
        ("10\u2075", "105", False),
        ("10\u2075", "10^5", True),
        ("GROSS", "gro\u00df", True),
        ("\u80ba\u764c\u3002", "\u80ba\u764c", True),  # lung cancer
        ("\u80ba\u764c", "\u80ba", False),
    ],
)
def test_answers_are_compared_whole(answer: str, reference: str, right: bool) -> None:
    assert (as_compared(answer) == as_compared(reference)) is right
    assert measured(Metric.accuracy, answered(reference, answer)) == right


@given(st.lists(st.tuples(st.integers(0, 5).map(lambda tenth: tenth / 5), st.booleans()), min_size=1, max_size=12))
def test_auroc_is_how_often_a_yes_has_the_higher_probability(rows: list[tuple[float, bool]]) -> None:
    found = measured(Metric.auroc, *[decided(p, is_yes) for p, is_yes in rows])
    pairs = list(product([p for p, is_yes in rows if is_yes], [p for p, is_yes in rows if not is_yes]))
    if pairs:
        assert found == pytest.approx(np.mean([(yes > no) + (yes == no) / 2 for yes, no in pairs]))
    else:
        assert isnan(found)


@given(WORDS, WORDS)
def test_rouge_l_is_of_the_longest_words_in_common_in_order(reference: list[str], answer: list[str]) -> None:
    def parts(words: list[str]) -> set[tuple[str, ...]]:
        return {part for length in range(len(words) + 1) for part in combinations(words, length)}

    longest = max(map(len, parts(reference) & parts(answer)))
    found = measured(Metric.rouge_l, answered(" ".join(reference), " ".join(answer)))
    if longest:
        recall, precision = longest / len(reference), longest / len(answer)
        assert found == pytest.approx(2 * recall * precision / (recall + precision))
    else:
        assert found == 0


@given(st.lists(st.tuples(st.sampled_from("abc"), st.sampled_from("abc")), min_size=1, max_size=12))
def test_balanced_accuracy_is_the_mean_recall_of_the_references(rows: list[tuple[str, str]]) -> None:
    found = measured(Metric.balanced_accuracy, *[answered(reference, answer) for reference, answer in rows])
    recalls = [
        np.mean([answer == reference for known, answer in rows if known == reference])
        for reference in {known for known, _ in rows}
    ]
    assert found == pytest.approx(np.mean(recalls))


def test_metrics_by_hand() -> None:
    some = [decided(0.9, True), decided(0.4, True), decided(0.3, False), decided(0.2, False), decided(0.6, False)]
    assert measured(Metric.accuracy, *some) == pytest.approx(3 / 5)
    assert measured(Metric.majority, *some) == pytest.approx(3 / 5)
    assert measured(Metric.sensitivity, *some) == pytest.approx(1 / 2)
    assert measured(Metric.specificity, *some) == pytest.approx(2 / 3)
    assert measured(Metric.brier, *some) == pytest.approx((0.01 + 0.36 + 0.09 + 0.04 + 0.36) / 5)
    told = answered("a mass in the left lung", "a lung mass, a large one")
    assert measured(Metric.token_recall, told) == pytest.approx(3 / 6)
    assert measured(Metric.token_f1, told) == pytest.approx(2 * 3 / 12)


def test_a_number_with_decimals_is_one_word() -> None:
    assert measured(Metric.token_f1, answered("1.5 cm", "5.1 cm")) == pytest.approx(1 / 2)


def test_majority_is_by_question_where_it_was_asked_often() -> None:
    often = [answered("a" if i < 7 else "b", question="often") for i in range(10)]
    rarely = [answered(reference, question=reference) for reference in "ccd"]  # each would be its own commonest
    assert measured(Metric.majority, *often, *rarely) == pytest.approx((7 + 2) / 13)


def test_counting_an_answer_twice_is_having_it_twice() -> None:
    rows = [decided(number / 7, number % 3 > 0) for number in range(8)]
    times = np.array([2, 0, 1, 3, 1, 0, 1, 2])
    columns = Columns.of(rows)
    repeated = columns.take(list(np.repeat(np.arange(8), times)))
    for metric in metrics_of("yesno"):
        assert value(metric, columns, times) == pytest.approx(value(metric, repeated, np.ones(times.sum())))


def test_an_uncertain_answer_is_neither_right_nor_wrong() -> None:
    sure, unsure = decided(0.9, True), answered("Yes", "uncertain", 0.45, abstained=True)
    assert measured(Metric.accuracy, sure, unsure) == 1
    assert measured(Metric.majority, decided(0.1, False), unsure, unsure) == 1  # of the rows that accuracy is of
    assert measured(Metric.sensitivity, sure, unsure) == 1
    assert measured(Metric.balanced_accuracy, sure, unsure, decided(0.1, False)) == 1
    assert measured(Metric.brier, sure, unsure) == pytest.approx((0.01 + 0.55**2) / 2)


def test_many_answers_about_one_patient_are_no_more_evidence() -> None:
    def interval(copies: int) -> float:
        found = estimated(
            Metric.accuracy, *[decided(0.9, i % 3 > 0, group=i) for i in range(30) for _ in range(copies)]
        )
        assert found.value is not None
        assert found.low is not None
        assert found.high is not None
        assert found.low < found.value < found.high
        return found.high - found.low

    assert interval(10) == pytest.approx(interval(1))


def test_what_is_not_known_is_none() -> None:
    all_yes = [decided(0.9, True, group=1), decided(0.8, True, group=2)]
    assert estimated(Metric.auroc, *all_yes) == Estimate(None)
    assert estimated(Metric.specificity, *all_yes) == Estimate(None)
    assert estimated(Metric.accuracy, *all_yes) == Estimate(1)  # an interval from 1 to 1 would say that it is certain
    assert estimated(Metric.brier, decided(0.9, True), decided(0.6, True)).low is None  # of one patient
    assert estimated(Metric.auroc, all_yes[0], decided(0.3, False, group=2)) == Estimate(1)  # half of the draws lack it


# The command


def evaluate(data: Path, *arguments: str | Path) -> Outcome:
    return dragonfly("eval", data, "--model", TINY, "--device", "cpu", "--max-tokens", "4", *arguments)


@pytest.fixture
def study(tmp_path: Path) -> Path:
    """Six pictures, and what the tiny network says of them, in said.json: (answer, P(yes)) of yes/no, a free answer."""
    for number in range(6):
        write_png(tmp_path / f"{number}.png", (60, 40), f"rgb({number * 40}, 80, 200)")
    table = tmp_path / "said.csv"
    arguments = ("-q", QUESTION, "-q", FREE, "-m", TINY, "--device", "cpu", "--max-tokens", "4", "-f", "jsonl")
    assert dragonfly("batch", tmp_path, *arguments, "-o", table).code == 0
    records = [json.loads(line) for line in table.read_text().splitlines()]
    said = [(Path(each["image"]).name, each["question"], each["answer"]) for each in records]
    (tmp_path / "said.json").write_text(json.dumps(said))
    return tmp_path


def rows_about(study: Path, wrong: int = 0, **more: Any) -> list[dict[str, Any]]:
    """What the network says as what is known, but for the first few of each question."""
    said = json.loads((study / "said.json").read_text())
    other = {"Yes": "No", "No": "Yes"}
    return [
        {
            "image": image,
            "question": question,
            "answer": other.get(answer, "something else") if int(image[0]) < wrong else answer or "nothing",
            **more,
        }
        for image, question, answer in said
    ]


def block_of(outcome: Outcome, question: str | None) -> dict[str, Any]:
    (found,) = [block for block in outcome.json["scores"] if block["question"] == question]
    return found


def test_scores_are_those_of_the_answers(study: Path) -> None:
    outcome = evaluate(write_rows(study / "rows.jsonl", rows_about(study, wrong=2)), "--json")
    assert outcome.code == 0, outcome.stderr
    yes_no = block_of(outcome, QUESTION)
    assert (yes_no["kind"], yes_no["answers"], yes_no["groups"]) == ("yesno", 6, 6)
    assert yes_no["metrics"]["accuracy"]["value"] == pytest.approx(4 / 6)
    assert "token_f1" not in yes_no["metrics"]
    free = block_of(outcome, FREE)
    assert free["metrics"]["accuracy"]["value"] == pytest.approx(4 / 6)
    assert "auroc" not in free["metrics"]
    assert outcome.json["unanswered"] == 0
    assert outcome.json["model"]["sha256"]


def test_text_names_question_metric_and_interval(study: Path) -> None:
    rows = [row for row in rows_about(study) if row["question"] == QUESTION]
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--metric", "accuracy")
    assert outcome.stdout == f"{QUESTION} (answers: 6, groups: 6)\n  accuracy 1.00\n"
    assert "answers are in" not in outcome.stderr


def test_a_name_in_the_data_is_repeated_nowhere(study: Path) -> None:
    rows = rows_about(study, patient="DOE^JANE")
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--json", "-o", study / "kept.csv")
    assert block_of(outcome, QUESTION)["groups"] == 1
    assert block_of(outcome, QUESTION)["metrics"]["accuracy"]["low"] is None
    written = "".join(path.read_text() for path in study.glob("*") if path.suffix in (".csv", ".json"))
    assert "DOE" not in outcome.stdout + outcome.stderr + written


def test_kept_answers_are_not_asked_for_again(study: Path) -> None:
    rows = rows_about(study)
    data = write_rows(study / "rows.jsonl", rows)
    first = evaluate(data, "--json", "-o", study / "kept.csv")
    kept = (study / "kept.csv").read_bytes()
    for number in range(6):
        (study / f"{number}.png").unlink()  # whoever asked again would fail
    second = evaluate(data, "--json", "-o", study / "kept.csv")
    assert (second.code, second.json) == (0, first.json)
    assert (study / "kept.csv").read_bytes() == kept
    assert "6 of 6 images are done" in second.stderr
    other = evaluate(data, "-o", study / "kept.csv", "--type", "open")
    expect_error(other, 7, "cannot continue", "form")


@pytest.mark.parametrize("suffix", ["jsonl", "parquet"])
def test_answers_may_be_kept_in_any_table(study: Path, suffix: str) -> None:
    if suffix == "parquet":
        pytest.importorskip("pyarrow")
    data = write_rows(study / "rows.jsonl", rows_about(study, wrong=2))
    assert evaluate(data, "--json").json == evaluate(data, "--json", "-o", study / f"kept.{suffix}").json


@pytest.mark.parametrize("cell", ["", "0.5?"])
def test_a_probability_that_was_changed_by_hand_is_told(study: Path, cell: str) -> None:
    data = write_rows(study / "rows.jsonl", [taught(1)])
    assert evaluate(data, "-o", study / "kept.csv").code == 0
    with (study / "kept.csv").open(newline="") as file:
        header, row = csv.reader(file)
    row[header.index("p_yes")] = cell
    with (study / "kept.csv").open("w", newline="") as file:
        csv.writer(file).writerows([header, row])
    changed = evaluate(data, "-o", study / "kept.csv")
    expect_error(changed, 7, "kept.csv", "saved again by another program", f"p_yes is {cell or 'empty'} in one of")


def test_held_out_rows_alone_are_asked(study: Path) -> None:
    rows = rows_about(study, wrong=2)
    rows = [row | {"split": "train" if int(row["image"][0]) < 2 else "val"} for row in rows]
    data = write_rows(study / "rows.jsonl", rows)
    held_out = evaluate(data, "--json")
    assert "8 of 12 rows are held out" in held_out.stderr
    assert block_of(held_out, QUESTION)["metrics"]["accuracy"]["value"] == 1
    assert block_of(evaluate(data, "--json", "--split", "train"), QUESTION)["metrics"]["accuracy"]["value"] == 0
    assert block_of(evaluate(data, "--json", "--split", "all"), QUESTION)["answers"] == 6
    unsplit = write_rows(study / "unsplit.jsonl", rows_about(study))
    expect_error(evaluate(unsplit, "--split", "held-out"), 4, "no row is held-out")


def test_every_form_of_rows_is_asked(study: Path) -> None:
    rows: list[dict[str, Any]] = [
        {"image": "0.png", "conversations": [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "Yes"}]},
        {"image": "0.png", "question": QUESTION, "answer": "Yes", "region": [0, 0, 30, 40]},
        {"image": "0.png", "question": QUESTION, "answer": "Yes", "frame": 0},
        {"image": "./0.png", "question": QUESTION, "answer": "No"},  # the same picture and another opinion
        {"image": "1.png", "question": QUESTION, "answer": "maybe"},
    ]
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--json", "-o", study / "kept.jsonl")
    assert outcome.code == 0, outcome.stderr
    kinds = {block["kind"]: block for block in outcome.json["scores"]}
    assert kinds["yesno"]["answers"] == 4
    metrics = kinds["yesno"]["metrics"]
    assert metrics["majority"]["value"] == 3 / 4
    assert metrics["specificity"]["value"] in (0, 1)  # of the one row whose answer is No
    assert kinds["open"]["metrics"]["accuracy"]["value"] == 0
    kept = [json.loads(line) for line in (study / "kept.jsonl").read_text().splitlines()]
    assert {each["row_options"] for each in kept} == {"", "region=0,0,30,40", "frame=0", "type=open"}


def test_a_question_is_asked_in_the_form_of_its_known_answer(study: Path) -> None:
    known = ["Yes.", "no", "Yes, with thin stripes."]
    rows = [{"image": "0.png", "question": QUESTION, "answer": answer} for answer in known]
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--json", "-o", study / "kept.jsonl")
    assert {block["kind"]: block["answers"] for block in outcome.json["scores"]} == {"yesno": 2, "open": 1}
    kept = [json.loads(line) for line in (study / "kept.jsonl").read_text().splitlines()]
    assert [each["settings"]["type"] for each in kept] == ["yesno", "open"]
    assert "warning: 1 yes/no question is asked freely, as its known answer is neither yes nor no" in outcome.stderr
    forced = evaluate(study / "rows.jsonl", "--json", "--type", "yesno")
    assert {block["kind"]: block["answers"] for block in forced.json["scores"]} == {"yesno": 2, "options": 1}
    assert "1 of the known answers is none of those to choose from" in forced.stderr


@pytest.mark.parametrize(
    ("own", "option", "place"),
    [
        ({"region": [0, 0, 30, 40]}, "--region", "10,10,20,20"),
        ({"region": [0, 0, 30, 40]}, "--center", "30,20"),
        ({"region": [0, 0, 30, 40]}, "--roi", "outlines.geojson"),
        ({"frame": 0}, "--frame", "1"),
    ],
)
def test_an_option_does_not_say_where_to_look_beside_a_row_that_does(
    study: Path, own: dict[str, Any], option: str, place: str
) -> None:
    data = write_rows(study / "rows.jsonl", [taught(1), taught(2, **own)])
    expect_error(evaluate(data, option, place), 2, "rows.jsonl, row 2: it says itself where to look", option)


def test_a_frame_that_row_and_option_agree_about_is_asked(study: Path) -> None:
    data = write_rows(study / "rows.jsonl", [taught(1), taught(2, frame=0), taught(3, region=[0, 0, 30, 40])])
    assert "(answers: 3," in evaluate(data, "--frame", "0").stdout


def test_a_question_that_was_asked_in_two_forms_is_told_apart(study: Path) -> None:
    rows = [taught(1), taught(2, answer="perhaps"), taught(3, question=FREE, answer="stripes")]
    data = write_rows(study / "rows.jsonl", rows)
    titles = [line for line in evaluate(data, "--metric", "accuracy").stdout.splitlines() if line.endswith(")")]
    assert titles == [f"{QUESTION} (answers: 1, groups: 1)", "all free answers (answers: 2, groups: 2)"]
    write_rows(data, rows[:2])
    titles = [line for line in evaluate(data, "--metric", "accuracy").stdout.splitlines() if line.endswith(")")]
    assert titles == [f"{QUESTION} [{kind}] (answers: 1, groups: 1)" for kind in ("yes/no questions", "free answers")]


def test_yes_and_no_are_known_however_tables_write_them(study: Path) -> None:
    plain = write_rows(study / "plain.jsonl", [taught(number, answer="no") for number in range(6)])
    known = ["No", "n", "FALSE", 0, 0.0, "'No.'"]
    rows = [taught(number, answer=answer) for number, answer in enumerate(known)]
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--json")
    assert outcome.json["scores"] == evaluate(plain, "--json").json["scores"]
    assert block_of(outcome, QUESTION)["kind"] == "yesno"
    assert "neither yes nor no" not in outcome.stderr
    forced = evaluate(study / "rows.jsonl", "--json", "--type", "yesno")
    assert forced.json["scores"] == outcome.json["scores"] and "to choose from" not in forced.stderr
    counted = [taught(number, question="How many stripes?", answer=number) for number in (0, 1)]
    free = evaluate(write_rows(study / "rows.jsonl", [*counted, taught(2, answer="N/A"), taught(3, answer="?")]))
    assert "warning: 2 yes/no questions are asked freely, as their known answer is neither yes nor no" in free.stderr


def test_numbers_from_a_table_with_gaps_are_places_on_a_scale(study: Path) -> None:
    rows = [{"image": f"{number}.png", "question": "How round?", "answer": float(number)} for number in (1, 2)]
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--json", "--scale", "1-5")
    assert block_of(outcome, "How round?")["kind"] == "options"
    assert "none of those to choose from" not in outcome.stderr


def test_rows_that_differ_in_their_system_prompt_share_no_answer(study: Path) -> None:
    systems = [None, "Look closely.", "Say as little as you can."]
    rows = [
        {
            "image": "0.png",
            "conversations": [
                *([{"from": "system", "value": system}] if system else []),
                {"from": "human", "value": FREE},
                {"from": "gpt", "value": "stripes"},
            ],
        }
        for system in systems
    ]
    data, kept = write_rows(study / "rows.jsonl", rows), study / "kept.jsonl"
    assert evaluate(data, "-o", kept).code == 0
    prompts = [json.loads(line)["prompt"] for line in kept.read_text().splitlines()]
    assert len(prompts) == 3
    for prompt, system in zip(prompts, systems, strict=True):
        assert [each in prompt for each in systems if each] == [each == system for each in systems if each]
    changed = rows[1]["conversations"][0]
    changed["value"] = "Look twice."
    again = evaluate(write_rows(data, rows), "-o", kept)
    assert "2 of 3 images are done" in again.stderr


def test_a_picture_that_cannot_be_read_is_in_no_figure(study: Path) -> None:
    (study / "0.png").write_bytes(b"no picture")
    outcome = evaluate(write_rows(study / "rows.jsonl", rows_about(study)), "--json")
    assert outcome.code == 8
    assert outcome.json["unanswered"] == 2
    assert block_of(outcome, QUESTION)["answers"] == 5
    assert "cannot open" in outcome.stderr


def test_what_failed_is_asked_again(study: Path) -> None:
    data, kept = write_rows(study / "rows.jsonl", rows_about(study)), study / "kept.csv"
    picture = (study / "0.png").read_bytes()
    (study / "0.png").unlink()
    assert evaluate(data, "--json", "-o", kept).json["unanswered"] == 2
    (study / "0.png").write_bytes(picture)
    again = evaluate(data, "--json", "-o", kept)
    assert (again.code, again.json["unanswered"]) == (0, 0)
    assert "5 of 6 images are done" in again.stderr


@pytest.mark.parametrize("own", ["system", "type"])
def test_failures_that_only_eval_can_ask_again_are_no_manifest(study: Path, own: str) -> None:
    """Without the row's system prompt, or as a question of yes or no, it would be another question."""
    turns = [{"from": "human", "value": QUESTION}, {"from": "gpt", "value": "Yes" if own == "system" else "stripes"}]
    system = [{"from": "system", "value": "Look closely."}] if own == "system" else []
    data = write_rows(study / "rows.jsonl", [{"image": "0.png", "conversations": [*system, *turns]}])
    (study / "0.png").write_bytes(b"no picture")
    assert evaluate(data, "-o", study / "kept.csv").code == 8
    outcome = dragonfly("batch", study / "kept.failed.csv", "-o", study / "again.csv")
    expect_error(outcome, 2, "kept.failed.csv, row 1", f"{own}=")
    assert "dragonfly eval" in outcome.error_lines[1]
    assert not (study / "again.csv").exists()


def test_answers_that_become_known_later_are_scored_without_asking(study: Path) -> None:
    rows = rows_about(study)
    kept = study / "kept.csv"
    assert evaluate(write_rows(study / "rows.jsonl", rows_about(study, wrong=3)), "-o", kept).code == 0
    for number in range(6):
        (study / f"{number}.png").unlink()
    corrected = evaluate(write_rows(study / "rows.jsonl", rows), "--json", "-o", kept)
    assert block_of(corrected, QUESTION)["metrics"]["accuracy"]["value"] == 1


def test_rows_that_share_a_patient_or_a_picture_are_one_group(study: Path) -> None:
    (study / "link.png").symlink_to(study / "1.png")
    rows = [
        {"image": "0.png", "question": QUESTION, "answer": "Yes", "patient": "a"},
        {"image": "1.png", "question": QUESTION, "answer": "Yes", "patient": "a"},
        {"image": "link.png", "question": QUESTION, "answer": "Yes"},
        {"image": "2.png", "question": QUESTION, "answer": "Yes"},
    ]
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--json")
    assert block_of(outcome, QUESTION)["groups"] == 2


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_columns_are_known_in_other_letters_and_those_of_no_use_are_told(study: Path, suffix: str) -> None:
    rows = [
        {"Image": f"{number}.png", "question": QUESTION, "answer": "Yes", "Patient": "a", "Split": split, "age": 7}
        for number, split in enumerate(("train", "test", "test"))
    ]
    data = write_rows(study / "rows.jsonl", rows)
    if suffix == ".parquet":
        parquet = pytest.importorskip("pyarrow.parquet")
        data = data.with_suffix(suffix)
        parquet.write_table(pytest.importorskip("pyarrow").Table.from_pylist(rows), data)
    outcome = evaluate(data, "--json")
    block = block_of(outcome, QUESTION)
    assert (block["answers"], block["groups"]) == (2, 1)
    assert f"note: {data}: columns that are not used: age\n" in outcome.stderr


def test_two_columns_of_a_parquet_file_are_not_taken_for_one(study: Path) -> None:
    pyarrow, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    cells = [pyarrow.array([text]) for text in ("0.png", QUESTION, "Yes", "No")]
    table = pyarrow.Table.from_arrays(cells, ["image", "question", "answer", "answer"])
    parquet.write_table(table, study / "a.parquet")
    expect_error(evaluate(study / "a.parquet"), 4, "a.parquet: two columns have the same name")


def test_files_that_name_one_patient_are_one_group_and_copies_of_a_picture_one(study: Path) -> None:
    shutil.copy(study / "1.png", study / "copy.png")
    for number in range(3):  # all by the same patient
        write_dicom(study / f"{number}.dcm", np.full((40, 50), 40 * number, np.uint8), StudyInstanceUID="1.2.3")
    names = ["0.dcm", "1.dcm", "2.dcm", "0.png", "1.png", "copy.png"]
    rows = [{"image": name, "question": QUESTION, "answer": "Yes"} for name in names]
    outcome = evaluate(write_rows(study / "rows.jsonl", rows), "--json")
    assert block_of(outcome, QUESTION)["groups"] == 3


def test_kept_answers_are_scored_after_a_calibration(study: Path) -> None:
    data = write_rows(study / "rows.jsonl", rows_about(study))
    assert evaluate(data, "-o", study / "kept.csv").code == 0
    lines = (study / "kept.csv").read_text().splitlines()
    asked = [line for line in lines[1:] if QUESTION in line]
    reviewed = [
        f"{line.replace('.png', f'-{copy}.png')},{'yes' if copy % 2 else 'no'}" for copy in range(8) for line in asked
    ]
    (study / "reviewed.csv").write_text("\n".join([f"{lines[0]},truth", *reviewed]))
    assert dragonfly("calibrate", study / "reviewed.csv").code == 0
    again = evaluate(data, "-o", study / "kept.csv", "--metric", "accuracy")
    assert again.code == 0 and "6 of 6 images are done" in again.stderr


def test_an_error_that_chance_makes_larger_has_no_interval() -> None:
    found = estimated(Metric.calibration_error, *[decided(0.7, i % 3 > 0, group=i) for i in range(30)])
    assert found.value is not None and found.low is found.high is None


def test_a_metric_is_of_questions_that_have_it(study: Path) -> None:
    data = write_rows(study / "rows.jsonl", rows_about(study))
    outcome = evaluate(data, "--metric", "rouge_l", "--metric", "rouge_l")
    assert outcome.stdout.count("rouge_l") == 1
    assert QUESTION not in outcome.stdout
    free = write_rows(study / "free.jsonl", [row for row in rows_about(study) if row["question"] == FREE])
    expect_error(evaluate(free, "--metric", "auroc"), 2, "auroc", "free.jsonl", "free answers")
    same = write_rows(study / "same.jsonl", [taught(number, answer="Yes") for number in range(2)])
    outcome = evaluate(same, "--metric", "auroc")
    assert outcome.stdout == f"{QUESTION} (answers: 2, groups: 2)\n  auroc -\n"
    assert block_of(evaluate(same, "--json"), QUESTION)["metrics"]["auroc"] == {
        "value": None,
        "low": None,
        "high": None,
    }


def test_options_are_checked_before_the_data(study: Path) -> None:
    missing = study / "none.jsonl"
    expect_error(evaluate(missing, "--options", "a,b", "--scale", "1-5"), 2, "contradict each other")
    expect_error(evaluate(missing, "--template", "nonesuch"), 2, "error: there is no template nonesuch")
    expect_error(evaluate(missing, "-o", "-"), 2, "--output -")


def test_bad_rows_are_named_and_left_out(study: Path) -> None:
    data = write_rows(study / "rows.jsonl", [*rows_about(study), "no JSON", {"image": "0.png", "question": QUESTION}])
    outcome = evaluate(data, "--json")
    assert outcome.code == 0, outcome.stderr
    assert "warning: row 13: it is not JSON" in outcome.stderr
    assert "warning: row 14:" in outcome.stderr
    expect_error(evaluate(data, "--max-errors", "1"), 4, "2 rows cannot be used", "row 13")
    expect_error(evaluate(study / "nothing.jsonl"), 3, "no such file")
    expect_error(evaluate(write_rows(study / "empty.jsonl", [])), 4, "no row that can be used")


def test_a_question_that_is_too_long_is_in_no_figure_and_costs_no_other(tmp_path: Path) -> None:
    write_png(tmp_path / "1.png", (60, 40))
    rows = [taught(1), taught(1, question="why " * 3000), taught(1, question="Is it dotted?")]
    outcome = dragonfly("eval", write_rows(tmp_path / "rows.jsonl", rows), "-m", TINY)
    assert outcome.code == 8, outcome.stderr
    assert "(answers: 2," in outcome.stdout
    assert "questions without an answer, which are in no figure: 1" in outcome.stdout
