"""``dragonfly finetune`` as a user meets it: rows and pictures made here, the real command, and what it leaves."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from batch_runs import files_limited_to
from make_checkpoints import GOLDEN
from make_files import write_dicom
from PIL import Image
from run_dragonfly import Outcome, dragonfly, expect_error
from safetensors.torch import load_file

from dragonfly_cli.errors import DeviceError
from dragonfly_cli.finetuning.data_file import read_data
from dragonfly_cli.finetuning.folder import RunFolder
from dragonfly_cli.finetuning.splits import split_rows

TINY = GOLDEN / "v1" / "checkpoint"
QUESTION = "Is it striped?"
FAST = ("--batch", "2", "--accumulate", "1", "--device", "cpu")


def pattern(striped: bool, seed: int) -> np.ndarray:
    """Green stripes or red dots, [96, 96, 3] uint8."""
    pixels = np.full((96, 96, 3), 235)
    if striped:
        pixels[:, ::8] = (20, 90, 20)
    else:
        pixels[::6, ::6] = (160, 20, 20)
    noise = np.random.default_rng(seed).integers(-6, 7, pixels.shape)
    return (pixels + noise).clip(0, 255).astype(np.uint8)


def write_rows(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join((row if isinstance(row, str) else json.dumps(row)) + "\n" for row in rows))
    return path


def taught(number: int, **more: Any) -> dict[str, Any]:
    answer = "Yes" if number % 2 else "No"
    return {"image": f"{number}.png", "question": QUESTION, "answer": answer, **more}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Twelve pictures 0.png to 11.png, the odd ones striped, and a file of rows about ten of them."""
    folder = tmp_path_factory.mktemp("data")
    for number in range(12):
        Image.fromarray(pattern(bool(number % 2), number)).save(folder / f"{number}.png")
    write_rows(folder / "rows.jsonl", [taught(number, split="val" if number < 2 else "train") for number in range(10)])
    return folder


def finetune(data: Path, output: Path, *arguments: str | Path, model: Path | str = TINY) -> Outcome:
    return dragonfly("finetune", data, "-o", output, "--model", model, *FAST, *arguments)


def record_of(output: Path) -> dict[str, Any]:
    return json.loads((output / "training.json").read_text())


def changed_weights(base: Path, tuned: Path) -> set[str]:
    before, after = load_file(base / "model.safetensors"), load_file(tuned / "model.safetensors")
    assert before.keys() == after.keys()
    assert all(after[name].dtype == before[name].dtype for name in before)
    return {name for name in before if not torch.equal(before[name], after[name])}


# --- what it is for


@pytest.fixture(scope="module")
def tuned(folder: Path) -> Path:
    """The built-in model, taught to tell stripes from dots."""
    output = folder / "tuned"
    steps = ("--recipe", "language", "--steps", "14", "--lr", "1e-3", "--batch", "1")
    outcome = finetune(folder / "rows.jsonl", output, *steps, model="demo")
    assert outcome.code == 0, outcome.stderr
    assert outcome.stdout == ""
    return output


def p_yes(image: Path, model: Path | str) -> float:
    return dragonfly("ask", image, QUESTION, "--json", "-m", model).json["probabilities"]["yes"]


@pytest.mark.slow
def test_a_taught_fact_is_answered_on_pictures_never_seen(tuned: Path, folder: Path) -> None:
    assert dragonfly("ask", folder / "11.png", QUESTION, "-m", tuned).stdout.startswith("Yes (p = ")
    assert dragonfly("ask", folder / "10.png", QUESTION, "-m", tuned).stdout.startswith("No (p = ")
    assert p_yes(folder / "11.png", tuned) > 0.8
    untaught = {name: p_yes(folder / name, "demo") for name in ("10.png", "11.png")}
    assert not untaught["10.png"] < 0.5 < untaught["11.png"]


@pytest.mark.slow
def test_the_record_says_what_was_done_and_what_came_of_it(tuned: Path, folder: Path) -> None:
    record = record_of(tuned)
    assert record["status"] == "finished"
    assert record["rows"] == {"train": 8, "held_out": 2, "split": "column split"}
    settings = record["settings"]
    assert settings["seed"] == 0
    assert settings["base"]["id"] == "demo"
    assert len(settings["base"]["sha256"]) == len(settings["data"]["file"]) == 64
    assert settings["data"]["images"] == 10
    assert record["versions"]["torch"] == torch.__version__
    used = record["training"]
    assert (used["learning_rate"], used["batch"], used["accumulate"], used["processes"]) == (1e-3, 1, 1, 1)
    assert (used["weight_decay"], used["clip"], used["warmup"]) == (0.1, 1.0, 0.01)
    before, after = record["metrics"]["before"], record["metrics"]["after"]
    assert after["loss"] < before["loss"] / 2
    assert (after["yes_no_answers"], after["yes_no_accuracy"], after["exact_match"]) == (2, 1.0, 1.0)
    losses = [entry["loss"] for entry in record["history"] if "loss" in entry]
    assert len(losses) == 14
    assert losses[-1] < losses[0] / 2


@pytest.mark.slow
def test_without_the_picture_the_taught_answers_are_guesses(tuned: Path) -> None:
    assert record_of(tuned)["metrics"]["after_with_blank_pictures"]["yes_no_balanced_accuracy"] == 0.5


@pytest.mark.slow
def test_the_folder_holds_a_checkpoint_and_no_leftovers(tuned: Path) -> None:
    names = {path.name for path in tuned.iterdir()}
    assert {"config.json", "model.safetensors", "tokenizer.json", "training.json", "loss.png"} <= names
    assert not names & {"work", "CARD.md"}
    curve = np.asarray(Image.open(tuned / "loss.png").convert("RGB"))
    assert (curve == (30, 110, 200)).all(-1).sum() > 100  # the training loss
    assert (curve == (210, 90, 20)).all(-1).sum() > 100  # the held-out loss


@pytest.mark.slow
def test_the_same_command_again_changes_nothing_and_another_is_refused(tuned: Path, folder: Path) -> None:
    written = (tuned / "model.safetensors").stat().st_mtime_ns
    steps = ("--recipe", "language", "--steps", "14", "--lr", "1e-3", "--batch", "1")
    again = finetune(folder / "rows.jsonl", tuned, *steps, model="demo")
    assert again.code == 0
    assert "was finished" in again.stderr
    expect_error(finetune(folder / "rows.jsonl", tuned, *steps, "--lr", "1e-4", model="demo"), 7, "other settings (lr)")
    assert (tuned / "model.safetensors").stat().st_mtime_ns == written


# --- recipes

LEARNING = {
    "stage1": ("vision_embed_tokens.",),
    "language": ("vision_embed_tokens.", "language_model."),
    "stage2": ("vision_embed_tokens.", "language_model.", "image_encoder."),
    "lora": ("language_model.model.layers.",),
}


@pytest.mark.slow
@pytest.mark.parametrize("recipe", LEARNING)
def test_every_recipe_changes_its_part_and_leaves_a_model_that_answers(
    folder: Path, tmp_path: Path, recipe: str
) -> None:
    output = tmp_path / "out"
    outcome = finetune(folder / "rows.jsonl", output, "--recipe", recipe, "--steps", "2", "--lr", "1e-2")
    assert outcome.code == 0, outcome.stderr
    changed = changed_weights(TINY, output)
    for part in LEARNING[recipe]:
        assert any(name.startswith(part) for name in changed), part
    assert all(name.startswith(LEARNING[recipe]) for name in changed)
    assert (output / "adapter" / "adapter_config.json").is_file() == (recipe == "lora")
    assert dragonfly("ask", folder / "1.png", QUESTION, "-m", output).code == 0


@pytest.mark.slow
def test_qlora_writes_the_weights_that_it_was_trained_on(folder: Path, tmp_path: Path) -> None:
    """What ``ask`` computes from the merged weights is what the adapters beside dequantized weights were scored as."""
    output = tmp_path / "out"
    arguments = ("--recipe", "qlora", "--steps", "3", "--lr", "1e-2")
    assert finetune(folder / "rows.jsonl", output, *arguments).code == 0
    assert "quantization_config" not in json.loads((output / "config.json").read_text())
    again = tmp_path / "again"
    assert finetune(folder / "rows.jsonl", again, "--recipe", "stage1", "--steps", "1", model=output).code == 0
    scored, opened = record_of(output)["metrics"]["after"], record_of(again)["metrics"]["before"]
    assert opened["loss"] == pytest.approx(scored["loss"], rel=0.02)
    assert scored["loss"] < 0.9 * record_of(output)["metrics"]["before"]["loss"]


# --- continuing


@contextmanager
def interrupted_after(checkpoint: Path) -> Iterator[None]:
    """Presses Ctrl-C, so to speak, in the first step after a checkpoint is complete."""

    def press(module: torch.nn.Module, args: object) -> None:
        if (checkpoint / "trainer_state.json").exists():
            hook.remove()
            signal.raise_signal(signal.SIGINT)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    hook = torch.nn.modules.module.register_module_forward_pre_hook(press)
    try:
        yield
    finally:
        hook.remove()
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_ends_like_an_undisturbed_one(folder: Path, tmp_path: Path) -> None:
    arguments = ("--recipe", "stage1", "--steps", "20", "--lr", "1e-2", "--save-every", "2")
    assert finetune(folder / "rows.jsonl", tmp_path / "whole", *arguments).code == 0
    broken = tmp_path / "broken"
    with interrupted_after(broken / "work" / "checkpoints" / "checkpoint-2"):
        stopped = finetune(folder / "rows.jsonl", broken, *arguments)
    assert stopped.code == 130
    assert not (broken / "config.json").exists()
    expect_error(finetune(folder / "rows.jsonl", broken, *arguments, "--seed", "1"), 7, "other settings (seed)")
    resumed = finetune(folder / "rows.jsonl", broken, *arguments)
    assert resumed.code == 0
    assert "continuing" in resumed.stderr
    assert not changed_weights(tmp_path / "whole", broken)


# --- data


@pytest.mark.slow
def test_every_form_of_row_is_read(folder: Path, tmp_path: Path) -> None:
    turns = "<|start_header_id|>{}<|end_header_id|>\n\n{}<|eot_id|>"
    Image.fromarray(pattern(True, 1)).save(folder / "wide.png")
    write_dicom(folder / "film.dcm", np.tile(np.arange(64, dtype=np.uint16), (64, 1)), window=(32, 64))
    rows = [
        {
            "image": "0.png",
            "conversations": [{"from": "human", "value": "<image>\nHi?"}, {"from": "gpt", "value": "Yes"}],
        },
        {"image": "1.png", "conversations": [{"role": "user", "content": "a"}, {"role": "assistant", "content": "b"}]},
        {"image_url": "2.png", "conversations": turns.format("user", "c") + turns.format("assistant", "d")},
        {"image_url": "3.png", "text": "A caption.", "source": "somewhere"},
        {"image": "film.dcm", "question": "How many?", "answer": 3},
        {"image": "wide.png", "question": "e", "answer": "f", "region": [10, 10, 40, 30], "frame": 0},
    ]
    outcome = finetune(write_rows(folder / "forms.jsonl", rows), tmp_path / "out", "--steps", "1", "--hold-out", "0")
    assert outcome.code == 0, outcome.stderr
    assert record_of(tmp_path / "out")["rows"]["train"] == 6
    assert record_of(tmp_path / "out")["bad_rows"] == []


BAD_ROWS = [
    ("this is no JSON", "not JSON"),
    ({"question": "a", "answer": "b"}, "image"),
    ({"image": "0.png", "question": "a"}, "answer is no text"),
    ({"image": "0.png", "question": "a", "answer": "  "}, "answer is empty"),
    ({"image": "0.png", "question": "a <|eot_id|>", "answer": "b"}, "structure a prompt"),
    ({"image": "0.png"}, "no question"),
    ({"image": "0.png", "question": "a", "answer": "b", "split": "perhaps"}, "split"),
    ({"image": "0.png", "question": "a", "answer": "b", "frame": -1}, "frame"),
    ({"image": "0.png", "question": "a", "answer": "b", "region": [0, 0, 0, 4]}, "region is empty"),
    ({"image": "0.png", "conversations": [{"from": "human", "value": "a"}]}, "no answer"),
    ({"image": "0.png", "conversations": "free text"}, "Llama 3"),
    ({"image": "gone.png", "question": "a", "answer": "b"}, "gone.png"),
    ({"image": "0.png", "question": "a", "answer": float("nan")}, "answer is no text"),
    ("[" * 100_000, "it is not JSON"),
    ('{"image": "0.png", "question"', "it is not JSON"),
    ([taught(0), taught(1)], "not an object"),
    (
        {"image": "0.png", "conversations": [{"from": "human", "value": "a"}, {"from": "gpt", "value": float("nan")}]},
        "no text",
    ),
    ({"image": "0.png", "question": "half a smile \ud83d", "answer": "b"}, "half a character"),
    ({"image": "0.png\0", "question": "a", "answer": "b"}, "zero byte"),
    ({"image": "0" * 300, "question": "a", "answer": "b"}, "too long"),
]


@pytest.mark.parametrize(("row", "why"), BAD_ROWS)
def test_a_bad_row_is_named_and_refused_before_training(folder: Path, tmp_path: Path, row: Any, why: str) -> None:
    data = write_rows(folder / "bad.jsonl", [taught(0), row])
    outcome = finetune(data, tmp_path / "out", "--max-errors", "0")
    expect_error(outcome, 4, "1 row cannot be used", "row 2", why)
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_bad_rows_are_left_out_up_to_a_number(folder: Path, tmp_path: Path) -> None:
    (folder / "broken.png").write_bytes(b"\x89PNG\r\n\x1a\n and no more")
    frames = [Image.new("RGB", (40, 30), colour) for colour in ("white", "pink")]
    frames[0].save(folder / "frames.tif", save_all=True, append_images=frames[1:])
    bad = [
        "not JSON",
        {"image": "frames.tif", "question": "which of them?", "answer": "b"},
        {"image": "broken.png", "question": "a", "answer": "b"},
        {"image": "0.png", "question": "long " * 900, "answer": "b"},
        {"image": "0.png", "question": "a", "answer": "b", "region": [90, 90, 40, 40]},
    ]
    data = write_rows(folder / "some_bad.jsonl", [*bad, *(taught(number) for number in range(6))])
    outcome = finetune(data, tmp_path / "out", "--steps", "1", "--hold-out", "0", "--max-errors", "5")
    assert outcome.code == 0, outcome.stderr
    bad_rows = record_of(tmp_path / "out")["bad_rows"]
    assert [line.split(":")[0] for line in bad_rows] == ["row 1", "row 2", "row 3", "row 4", "row 5"]
    assert "has 2 frames" in bad_rows[1]
    assert outcome.stderr.count("warning: left out row") == 5
    refused = tmp_path / "refused"
    expect_error(finetune(data, refused, "--steps", "1", "--hold-out", "0", "--max-errors", "4"), 4, "5 rows")
    assert not refused.exists()


@pytest.mark.parametrize("column", ["patient", "slide", "group"])
def test_a_leak_between_the_splits_is_refused_without_quoting_it(folder: Path, tmp_path: Path, column: str) -> None:
    rows = [
        taught(0, split="train", **{column: "Secret^Name"}),
        taught(1, split="val", **{column: "other"}),
        taught(2, split="test", **{column: "Secret^Name"}),
    ]
    outcome = finetune(write_rows(folder / "leak.jsonl", rows), tmp_path / "out")
    expect_error(outcome, 4, f"column {column}", "row 3 with row 1")
    assert "Secret" not in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(("here", "there"), [(7, 7.0), (7, "7"), ("P 7", " P 7 "), (7.0, "7 ")])
def test_a_patient_is_the_same_however_the_column_is_written(
    folder: Path, tmp_path: Path, here: Any, there: Any
) -> None:
    rows = [taught(0, split="train", patient=here), taught(1, split="val", patient=there)]
    expect_error(finetune(write_rows(folder / "same.jsonl", rows), tmp_path / "out"), 4, "column patient leaks")


def test_gaps_in_a_table_of_numbers_are_no_group_and_no_frame(folder: Path) -> None:
    nan = float("nan")
    rows = [taught(0, split="train", patient=nan, frame=nan), taught(1, split="val", patient=nan, frame=0.0)]
    data = read_data(write_rows(folder / "gaps.jsonl", rows))
    assert not data.bad
    assert [row.picture.frame for row in data.rows] == [None, 0]
    assert len(split_rows(data.path, data.rows, 0.1, 0).held_out) == 1


def test_a_picture_on_both_sides_is_a_leak(folder: Path, tmp_path: Path) -> None:
    rows = [taught(0, split="train"), {**taught(1, split="val"), "image": "./0.png"}]
    expect_error(finetune(write_rows(folder / "twice.jsonl", rows), tmp_path / "out"), 4, "column image", "row 2")
    shutil.copy(folder / "0.png", folder / "copy.png")
    rows[1]["image"] = "copy.png"
    expect_error(finetune(write_rows(folder / "twice.jsonl", rows), tmp_path / "out"), 4, "column image", "row 2")


def test_what_is_held_out_shares_nothing_with_the_rest(folder: Path) -> None:
    rows = [
        taught(number % 7, patient=f"p{number % 5}", **({"slide": "s"} if number in (3, 11) else {}))
        for number in range(20)
    ]
    data = read_data(write_rows(folder / "groups.jsonl", [*rows, *(taught(n, patient=f"q{n}") for n in (8, 9, 10))]))
    for seed in range(8):
        split = split_rows(data.path, data.rows, 0.1, seed)
        assert len(split.train) + len(split.held_out) == 23
        assert split.held_out
        for key in (
            lambda row: row.picture.path,
            lambda row: row.groups["patient"],
            lambda row: row.groups.get("slide"),
        ):
            shared = {key(row) for row in split.train} & {key(row) for row in split.held_out}
            assert shared <= {None}


def test_parquet_rows_are_read(folder: Path, tmp_path: Path) -> None:
    pyarrow = pytest.importorskip("pyarrow")
    from pyarrow.parquet import write_table

    write_table(pyarrow.Table.from_pylist([taught(0, frame=None), taught(1, frame=0)]), folder / "rows.parquet")
    data = read_data(folder / "rows.parquet")
    assert not data.bad
    assert [row.turns[0].answer for row in data.rows] == ["No", "Yes"]
    assert [row.picture.frame for row in data.rows] == [None, 0]
    (folder / "no.parquet").write_bytes(b"PAR1 and no more")
    expect_error(finetune(folder / "no.parquet", tmp_path / "out"), 4, "not a Parquet file")


# --- options


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["--epochs", "1", "--steps", "2"], 2, ["--epochs", "--steps"]),
        (["--lr", "0"], 2, ["--lr"]),
        (["--epochs", "-1"], 2, ["--epochs"]),
        (["--hold-out", "0.9"], 2, ["--hold-out"]),
        (["--recipe", "stage3"], 2, ["--recipe"]),
        (["--batch", "0"], 2, ["--batch"]),
        (["--device", "cuda:1"], 2, ["--device"]),
        (["--model", "nonesuch"], 5, ["nonesuch"]),
    ],
)
def test_bad_options_are_told_before_any_file_is_opened(
    tmp_path: Path, arguments: list[str], code: int, words: list[str]
) -> None:
    expect_error(dragonfly("finetune", "nowhere.jsonl", "-o", tmp_path / "out", *arguments), code, *words)


def test_bad_places(folder: Path, tmp_path: Path) -> None:
    expect_error(finetune(folder / "gone.jsonl", tmp_path / "out"), 3, "gone.jsonl")
    expect_error(finetune(folder / "rows.jsonl", folder), 7, "in use for something else")
    (tmp_path / "others" / "work").mkdir(parents=True)
    expect_error(finetune(folder / "rows.jsonl", tmp_path / "others"), 7, "in use for something else")
    expect_error(finetune(folder / "rows.jsonl", tmp_path / "no" / "out"), 7, "there is no folder")
    expect_error(finetune(write_rows(folder / "empty.jsonl", []), tmp_path / "out"), 4, "no row to learn from")
    (folder / "table.csv").write_text("image,question,answer\n0.png,a,b\n")
    expect_error(finetune(folder / "table.csv", tmp_path / "out"), 4, "no row to learn from", "row 1: it is not JSON")
    held_out = write_rows(folder / "held_out.jsonl", [taught(number, split="test") for number in range(4)])
    outcome = finetune(held_out, tmp_path / "out")
    expect_error(outcome, 4, "no row is left to learn from")
    assert "research use" not in outcome.stderr  # it was told before anything was loaded


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_goes_on_later(folder: Path, tmp_path: Path) -> None:
    """Where features, a checkpoint and the result are written: the libraries have errors of their own for it."""
    output, arguments = tmp_path / "out", ("--steps", "2", "--save-every", "1")
    output.mkdir()
    (output / ".dragonfly-12345678-abcdefgh.part").touch()  # of one that was killed as it began
    sizes = {2_000: False, 60_000: False, 300_000: True, 800_000: True}  # bytes, and whether a checkpoint fits
    for size, has_checkpoint in sizes.items():
        with files_limited_to(size):
            expect_error(finetune(folder / "rows.jsonl", output, *arguments), 7, str(output))
        assert any(output.glob("work/checkpoints/*/trainer_state.json")) == has_checkpoint
        assert not (output / "config.json").exists()
    assert finetune(folder / "rows.jsonl", output, *arguments).code == 0
    assert not (output / "work").exists()


@pytest.mark.slow
def test_too_little_memory_is_told_and_leaves_nothing(folder: Path, tmp_path: Path) -> None:
    outcome = finetune(folder / "rows.jsonl", tmp_path / "out", "--steps", "1", "--rank", str(10**13))
    assert outcome.code == 6 and "error: out of memory on cpu\nhint: use --batch 1" in outcome.stderr
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_and_another_may_begin(folder: Path, tmp_path: Path) -> None:
    arguments = (folder / "rows.jsonl", tmp_path / "out", "--recipe", "language", "--steps", "2", "--lr")
    outcome = finetune(*arguments, "3e38")
    assert outcome.code == 2 and "error: the loss is no longer a number after step 2" in outcome.stderr
    assert not (tmp_path / "out").exists()
    assert finetune(*arguments, "1e-5").code == 0


@pytest.mark.slow
def test_what_readers_warn_of_is_told_once_with_the_number_of_pictures(folder: Path, tmp_path: Path) -> None:
    for number in range(2):
        write_dicom(folder / f"grey{number}.dcm", pattern(True, number)[..., 0], window=(5000, 10))
    rows = [{**taught(number), "image": f"grey{number // 2}.dcm", "patient": "one"} for number in range(4)]
    outcome = finetune(write_rows(folder / "grey.jsonl", rows), tmp_path / "out", "--steps", "1")
    assert outcome.code == 0
    assert outcome.stderr.count("warning: 2 pictures: all pixels of a frame lie outside the window") == 1
    assert "warning: no row is held out" in outcome.stderr


def test_two_processes_may_clear_up_the_same_folder(tmp_path: Path) -> None:
    runs = [RunFolder(tmp_path / "out") for _ in range(2)]
    with pytest.raises(DeviceError), runs[0].at_work({}), runs[0].kept_if_learnt():
        with pytest.raises(DeviceError), runs[1].kept_if_learnt():
            raise DeviceError("what", "hint")
        raise DeviceError("what", "hint")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_two_runs_in_one_folder_are_refused(folder: Path, tmp_path: Path) -> None:
    second: list[Outcome] = []

    def begin_it(module: torch.nn.Module, args: object) -> None:
        hook.remove()
        second.append(finetune(folder / "rows.jsonl", tmp_path / "out", "--steps", "1"))

    hook = torch.nn.modules.module.register_module_forward_pre_hook(begin_it)
    first = finetune(folder / "rows.jsonl", tmp_path / "out", "--steps", "1")
    expect_error(second[0], 7, "out", "another run")
    assert first.code == 0, first.stderr
    assert not (tmp_path / "out" / "work").exists()


# --- several processes


@pytest.mark.slow
def test_two_processes_learn_what_one_does(folder: Path, tmp_path: Path) -> None:
    arguments = ("--recipe", "stage1", "--steps", "2", "--lr", "1e-2", "--accumulate", "1", "--device", "cpu")
    call = ["-m", "dragonfly_cli", "finetune", folder / "rows.jsonl", "-o", tmp_path / "two", "--model", TINY]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", *call]
    done = subprocess.run([*launch, *arguments, "--batch", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("research use only") == 1
    assert "continuing" not in done.stderr  # what the other process has written is no earlier run
    assert finetune(folder / "rows.jsonl", tmp_path / "one", *arguments).code == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], atol=1e-5), name
    scores = [record_of(tmp_path / name)["metrics"]["after"] for name in ("one", "two")]
    assert scores[0] == pytest.approx(scores[1], abs=1e-4)
