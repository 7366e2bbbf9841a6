"""``dragonfly finetune`` as a user meets it: rows and pictures made here, the real command, and what it leaves."""

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from batch_runs import files_limited_to, may_not_write_everywhere
from make_files import write_dicom
from make_series import write_ct
from peft import PeftModel
from PIL import Image
from run_dragonfly import Outcome, dragonfly, expect_error
from safetensors.torch import load_file, save_file
from torch.utils.data import DataLoader
from tuning_data import QUESTION, TINY, finetune, make_data, pattern, record_of, taught, write_rows

from dragonfly_cli.datasets.rows import Picture, Row, Turn
from dragonfly_cli.engine import checkpoints
from dragonfly_cli.errors import DeviceError, LostError
from dragonfly_cli.finetuning.curve import loss_curve
from dragonfly_cli.finetuning.folder import RunFolder
from dragonfly_cli.finetuning.pictures import PictureReader, PictureSamples
from dragonfly_cli.options import OpenOptions
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.training import Exchange, Sample, Teaching
from dragonfly_med.training.learner import Learner
from dragonfly_med.training.sequences import Loss, SequenceMaker


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_data(tmp_path_factory.mktemp("data"))


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
    assert "note: model demo learns from 8 rows, 2 held out (column split)" in outcome.stderr
    assert "after with blank pictures" in outcome.stderr
    return output


def p_yes(image: Path, model: Path | str) -> float:
    return dragonfly("ask", image, QUESTION, "--json", "-m", model).json["probabilities"]["yes"]


@pytest.mark.slow
def test_a_taught_fact_is_answered_on_pictures_never_seen(tuned: Path, folder: Path) -> None:
    assert dragonfly("ask", folder / "11.png", QUESTION, "-m", tuned).stdout.startswith("Yes (p ")
    assert dragonfly("ask", folder / "10.png", QUESTION, "-m", tuned).stdout.startswith("No (p ")
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
    assert {"dragonfly-cli", "accelerate", "numpy", "pillow", "pydicom"} <= set(record["versions"])
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
    alone = np.asarray(loss_curve([{"step": 1, "loss": 2.0}]))
    assert not (alone == (210, 90, 20)).all(-1).any()


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
    outcome = finetune(folder / "rows.jsonl", output, "--recipe", recipe, "--steps", "1", "--lr", "1e-2")
    assert outcome.code == 0, outcome.stderr
    changed = changed_weights(TINY, output)
    for part in LEARNING[recipe]:
        assert any(name.startswith(part) for name in changed), part
    assert all(name.startswith(LEARNING[recipe]) for name in changed)
    assert (output / "adapter" / "adapter_config.json").is_file() == (recipe == "lora")
    assert dragonfly("ask", folder / "1.png", QUESTION, "-m", output).code == 0


@pytest.mark.slow
def test_the_adapter_beside_its_base_is_the_merged_checkpoint(folder: Path, tmp_path: Path) -> None:
    assert finetune(folder / "rows.jsonl", tmp_path / "out", "--steps", "1", "--lr", "1e-2").code == 0
    base = DragonflyForCausalLM.from_pretrained(TINY)
    merged = PeftModel.from_pretrained(base, tmp_path / "out" / "adapter").merge_and_unload().state_dict()
    for name, weight in DragonflyForCausalLM.from_pretrained(tmp_path / "out").state_dict().items():
        assert torch.allclose(weight, merged[name], atol=1e-6), name


@pytest.mark.slow
def test_the_folder_may_be_given_away(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """No file tells where anything lay, whoever reads one reads all, and folder and data may go elsewhere."""
    study, moved = tmp_path / "somebody", tmp_path / "moved"
    study.mkdir()
    make_data(study)
    monkeypatch.chdir(study)
    shutil.copytree(TINY, "base")
    arguments = ("--steps", "1", "--hold-out", "0")
    with (study / "rows.jsonl").open("a") as rows:
        rows.write(json.dumps({**taught(0), "image": "gone.png"}))
    outcome = finetune(study / "rows.jsonl", Path("demo"), *arguments, model="base")
    assert outcome.code == 0, outcome.stderr
    assert record_of(Path("demo"))["bad_rows"] == ["row 11: cannot read gone.png: No such file or directory"]
    assert outcome.stderr.endswith("--model ./demo\n")  # without the dot it would be the built-in one
    files = [path for path in Path("demo").rglob("*") if path.is_file()]
    assert {path.stat().st_mode for path in files} == {Path("rows.jsonl").stat().st_mode}
    for path in (path for path in files if path.suffix in (".json", ".md", ".txt")):
        assert not {word for word in (str(tmp_path), str(TINY)) if word in path.read_text()}, path
    study.rename(moved)
    monkeypatch.chdir(moved)
    assert dragonfly("ask", "1.png", QUESTION, "-m", moved / "demo").code == 0
    (moved / "demo" / "work" / "checkpoints").mkdir(parents=True)  # left by a kill in the very end
    again = finetune(moved / "rows.jsonl", moved / "demo", *arguments, model="base")
    assert again.code == 0, again.stderr
    assert "was finished" in again.stderr
    assert not (moved / "demo" / "work").exists()


def test_the_record_of_the_base_is_not_that_of_the_run(tmp_path: Path) -> None:
    """Not even for a moment, as a kill may come in it: the base may have been trained here, too."""
    run = RunFolder(tmp_path)
    run.result.mkdir(parents=True)
    run.write({"of": "this run"})
    for name in ("config.json", "training.json"):
        (run.result / name).write_text('{"of": "the base"}')
    run.publish()
    assert record_of(tmp_path) == {"of": "this run"}
    assert (tmp_path / "config.json").is_file()


@pytest.mark.slow
@pytest.mark.parametrize("loss", ["answer-only", "reference"])
def test_the_loss_is_that_of_answers_or_of_whole_conversations(folder: Path, tmp_path: Path, loss: Loss) -> None:
    arguments = ("--recipe", "stage1", "--steps", "1", "--loss", loss)
    assert finetune(folder / "rows.jsonl", tmp_path / "out", *arguments).code == 0
    network, processor = DragonflyForCausalLM.from_pretrained(TINY), DragonflyProcessor.from_pretrained(TINY)
    samples = [
        Sample([[Exchange(QUESTION, answer)]], processor.pixels(Image.open(folder / name)))
        for name, answer in (("0.png", "No"), ("1.png", "Yes"))
    ]
    with torch.no_grad():
        expected = Learner(network, processor)(**SequenceMaker(processor, Teaching(loss)).batch(samples))["loss"]
    assert record_of(tmp_path / "out")["metrics"]["before"]["loss"] == pytest.approx(float(expected), abs=1e-3)


@pytest.mark.slow
def test_the_scores_after_training_are_of_the_weights_that_are_written(folder: Path, tmp_path: Path) -> None:
    """What learns is held in 32 bits, and written in the 16 of the checkpoint that it began with."""
    base, output, again = Path(shutil.copytree(TINY, tmp_path / "base")), tmp_path / "out", tmp_path / "again"
    weights = {name: weight.bfloat16() for name, weight in load_file(base / "model.safetensors").items()}
    save_file(weights, base / "model.safetensors", metadata={"format": "pt"})
    config = json.loads((base / "config.json").read_text())
    (base / "config.json").write_text(json.dumps(config | {"torch_dtype": "bfloat16"}))
    arguments = ("--recipe", "language", "--steps", "2", "--lr", "1e-3")
    assert finetune(folder / "rows.jsonl", output, *arguments, model=base).code == 0
    assert finetune(folder / "rows.jsonl", again, "--recipe", "stage1", "--steps", "1", model=output).code == 0
    scored, opened = record_of(output)["metrics"]["after"], record_of(again)["metrics"]["before"]
    assert scored["loss"] == pytest.approx(opened["loss"], abs=1e-4)


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
def called_after(checkpoint: Path, call: Callable[[], object]) -> Iterator[None]:
    """Calls in the first step after a checkpoint is complete."""

    def look(module: torch.nn.Module, args: object) -> None:
        if (checkpoint / "trainer_state.json").exists():
            hook.remove()
            call()

    hook = torch.nn.modules.module.register_module_forward_pre_hook(look)
    try:
        yield
    finally:
        hook.remove()


@contextmanager
def interrupted_after(checkpoint: Path) -> Iterator[None]:
    """Presses Ctrl-C, so to speak, in the first step after a checkpoint is complete."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background job ignores it
    try:
        with called_after(checkpoint, lambda: signal.raise_signal(signal.SIGINT)):
            yield
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.slow
def test_an_interrupted_run_goes_on_and_ends_like_an_undisturbed_one(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where a power cut has torn its last checkpoint and what the encoder has seen."""
    arguments = ("--recipe", "stage1", "--steps", "20", "--lr", "1e-2", "--save-every", "2")
    assert finetune(folder / "rows.jsonl", tmp_path / "whole", *arguments).code == 0
    broken = tmp_path / "broken"
    saved = broken / "work" / "checkpoints"
    with interrupted_after(saved / "checkpoint-4"):
        stopped = finetune(folder / "rows.jsonl", broken, *arguments)
    assert stopped.code == 130
    assert stopped.stderr.endswith("note: interrupted; the same command goes on\n")
    assert not (broken / "config.json").exists()
    expect_error(finetune(folder / "rows.jsonl", broken, *arguments, "--seed", "1"), 7, "other settings (seed)")
    with monkeypatch.context() as launched:
        launched.setenv("WORLD_SIZE", "2")
        expect_error(finetune(folder / "rows.jsonl", broken, *arguments), 7, "other settings (processes)")
    for torn in (saved / "checkpoint-4" / "model.safetensors", *broken.glob("work/features/*")):
        os.truncate(torn, torn.stat().st_size // 2)
    resumed = finetune(folder / "rows.jsonl", broken, *arguments)
    assert resumed.code == 0
    assert "continuing" in resumed.stderr
    assert not changed_weights(tmp_path / "whole", broken)


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
        (["--seed", str(2**32)], 2, ["--seed"]),
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
    expect_error(finetune(folder, tmp_path / "out"), 3, "it is no file")
    (tmp_path / "link").symlink_to("nowhere")
    expect_error(finetune(folder / "rows.jsonl", tmp_path / "link"), 7, "in use for something else")
    for record in ("[]", '{"settings": {}}'):
        (tmp_path / "others" / "training.json").write_text(record)
        expect_error(finetune(folder / "rows.jsonl", tmp_path / "others"), 7, "training.json in it cannot be read")

    expect_error(finetune(write_rows(folder / "empty.jsonl", []), tmp_path / "out"), 4, "no row that can be used")
    (folder / "table.csv").write_text("image,question,answer\n0.png,a,b\n")
    expect_error(
        finetune(folder / "table.csv", tmp_path / "out"), 4, "no row that can be used", "row 1: it is not JSON"
    )
    held_out = write_rows(folder / "held_out.jsonl", [taught(number, split="test") for number in range(4)])
    outcome = finetune(held_out, tmp_path / "out")
    expect_error(outcome, 4, "no row is left to learn from")
    assert "research use" not in outcome.stderr  # it was told before anything was loaded
    rows = [taught(0, split="val"), {**taught(1, split="train"), "region": [0, 0, 10**6, 5]}]
    outcome = finetune(write_rows(folder / "outside.jsonl", rows), tmp_path / "out")
    expect_error(outcome, 4, "no row is left to learn from: row 2: 1.png: the region reaches outside")


def test_no_place_within_a_series_that_is_learnt_from(folder: Path) -> None:
    """What is written there would be taken for data when the run goes on."""
    (folder / "study" / "inner").mkdir(parents=True)
    (folder / "link").symlink_to("study")
    data = write_rows(folder / "study.jsonl", [taught(0), {**taught(1), "image": "link"}])
    expect_error(finetune(data, folder / "study" / "inner" / "out"), 7, "it lies in a folder that is learnt from")


def test_places_that_are_not_one_s_own() -> None:
    with TemporaryDirectory() as name:  # pytest's own are closed to all others, from above
        place, closed = Path(name), Path(name, "closed")
        closed.mkdir(mode=0o700)
        rows = make_data(place) / "rows.jsonl"
        base = Path(shutil.copytree(TINY, place / "base"))
        (base / "model.safetensors").chmod(0o600)
        place.chmod(0o755)
        with may_not_write_everywhere():
            expect_error(finetune(Path("rows.jsonl"), place / "out"), 7, f"cannot write {place}/out: Permission denied")
            expect_error(finetune(Path("rows.jsonl"), closed / "out"), 7, f"cannot write {closed}/out: Permission")
        place.chmod(0o777)
        with may_not_write_everywhere():
            expect_error(finetune(closed / "rows.jsonl", place / "out"), 4, f"cannot read {closed}/rows.jsonl: Permis")
            expect_error(finetune(rows, place / "out", model=closed / "model"), 5, f"{closed}/model: Permission")
            expect_error(finetune(rows, place / "out", model=base), 5, f"{base}: the weights cannot be read: Permis")
        base.chmod(0o600)
        with may_not_write_everywhere():
            outcome = finetune(rows, place / "out", model=base)
        expect_error(outcome, 5, f"{base}: Permission denied")
        assert not (place / "out").exists()


@pytest.mark.slow
def test_a_full_disk_is_told_and_the_run_goes_on_later(folder: Path, tmp_path: Path) -> None:
    """Where features, a checkpoint and the result are written: the libraries have errors of their own for it."""
    output, arguments = tmp_path / "out", ("--steps", "2", "--save-every", "1")
    output.mkdir()
    (output / ".dragonfly-12345678-abcdefgh.part").touch()  # of one that was killed as it began
    sizes = {2_000: False, 60_000: False, 300_000: True, 800_000: True}  # bytes, and whether a checkpoint fits
    for size, has_checkpoint in sizes.items():
        with files_limited_to(size):
            outcome = finetune(folder / "rows.jsonl", output, *arguments)
        expect_error(outcome, 7, str(output))
        assert "make room" in outcome.stderr
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
def test_a_length_without_room_for_text_is_told(folder: Path, tmp_path: Path) -> None:
    outcome = finetune(folder / "rows.jsonl", tmp_path / "out", "--max-length", "100")
    expect_error(outcome, 2, "--max-length 100: a picture alone takes 867 tokens")
    assert not (tmp_path / "out").exists()


@pytest.mark.slow
def test_a_loss_that_is_no_number_ends_the_run_and_another_may_begin(folder: Path, tmp_path: Path) -> None:
    arguments = (folder / "rows.jsonl", tmp_path / "out", "--recipe", "language", "--steps", "2", "--lr")
    outcome = finetune(*arguments, "3e38")
    assert outcome.code == 2 and "error: the loss is no longer a number after step 1" in outcome.stderr
    assert not (tmp_path / "out").exists()
    assert finetune(*arguments, "1e-5").code == 0


@pytest.mark.slow
def test_a_loss_that_the_last_step_has_ruined_is_told(folder: Path, tmp_path: Path) -> None:
    data = write_rows(folder / "all.jsonl", [taught(number) for number in range(4)])
    arguments = ("--recipe", "stage1", "--steps", "1", "--hold-out", "0", "--lr", "3e38")
    outcome = finetune(data, tmp_path / "out", *arguments)
    expect_error(outcome, 2, "the loss is no longer a number after step 1")
    assert "another --output" in outcome.stderr
    assert not (tmp_path / "out" / "config.json").exists()


@pytest.mark.slow
def test_a_run_whose_picture_is_lost_goes_on_once_it_is_back(tmp_path: Path) -> None:
    data = make_data(tmp_path) / "rows.jsonl"
    picture, output = tmp_path / "5.png", tmp_path / "out"
    arguments = ("--recipe", "stage2", "--steps", "10")
    with called_after(output / "work" / "checkpoints" / "checkpoint-2", lambda: picture.rename(tmp_path / "away")):
        lost = finetune(data, output, *arguments)
    expect_error(lost, 4, f"no such file: {picture}")
    assert "run the same command, which goes on" in lost.stderr
    (tmp_path / "away").rename(picture)
    assert finetune(data, output, *arguments).code == 0


def test_a_picture_lost_to_another_process_is_told_alike(tmp_path: Path) -> None:
    processor = DragonflyProcessor.from_pretrained(TINY)
    row = Row(1, Picture(tmp_path / "gone: 1.png"), (Turn(QUESTION, "Yes"),), {}, None)
    maker = SequenceMaker(processor, Teaching())
    samples = PictureSamples(PictureReader(processor, OpenOptions(), None), maker, [row])
    with pytest.raises(LostError) as lost:
        list(DataLoader(samples, num_workers=1, collate_fn=maker.batch))
    assert lost.value.message == f"no such file: {tmp_path / 'gone: 1.png'}"


@pytest.mark.slow
def test_an_exchanged_base_is_not_gone_on_with(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also where it is so large that a question would not wait for its hash."""
    monkeypatch.setattr(checkpoints, "_HASHED_UP_TO_BYTES", 1000)
    base, data = Path(shutil.copytree(TINY, tmp_path / "base")), folder / "rows.jsonl"
    assert finetune(data, tmp_path / "out", "--steps", "1", model=base).code == 0
    weights = load_file(base / "model.safetensors")
    name = next(name for name in weights if "vision_embed_tokens" in name)
    save_file(weights | {name: weights[name] + 1}, base / "model.safetensors", metadata={"format": "pt"})
    expect_error(finetune(data, tmp_path / "out", "--steps", "1", model=base), 7, "other settings (base)")


@pytest.mark.slow
def test_what_readers_warn_of_is_told_once_with_the_number_of_pictures(folder: Path, tmp_path: Path) -> None:
    """By each run and in the record, also where a run goes on and reads no picture again."""
    for number in range(2):
        write_dicom(folder / f"grey{number}.dcm", pattern(True, number)[..., 0], window=(5000, 10))
    rows = [{**taught(number), "image": f"grey{number // 2}.dcm", "patient": "one"} for number in range(4)]
    data, output = write_rows(folder / "grey.jsonl", rows), tmp_path / "out"
    arguments = ("--recipe", "stage1", "--steps", "2", "--save-every", "1")
    with interrupted_after(output / "work" / "checkpoints" / "checkpoint-1"):
        begun = finetune(data, output, *arguments)
    ended = finetune(data, output, *arguments)
    assert (begun.code, ended.code) == (130, 0)
    for outcome in (begun, ended):
        assert outcome.stderr.count("warning: 2 pictures: all pixels of a frame lie outside the window") == 1
        assert "warning: no row is held out" in outcome.stderr
    (warned, count), *others = record_of(output)["picture_warnings"].items()
    assert (warned[:22], count, others) == ("all pixels of a frame ", 2, [])


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
    """Every id of an answer counts the same, also where one process has longer answers than the other."""
    rows = [taught(number, split="val" if number < 2 else "train") for number in range(10)]
    rows = [row | {"answer": "Stripes, from top to bottom"} if row["answer"] == "Yes" else row for row in rows]
    data = write_rows(folder / "uneven.jsonl", rows)
    arguments = ("--recipe", "stage1", "--steps", "2", "--lr", "1e-2", "--accumulate", "1", "--device", "cpu")
    call = ["-m", "dragonfly_cli", "finetune", data, "-o", tmp_path / "two", "--model", TINY]
    launch = [sys.executable, "-m", "torch.distributed.run", "--nproc_per_node", "2", "--standalone", *call]
    done = subprocess.run([*launch, *arguments, "--batch", "1"], capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr
    assert done.stderr.count("research use only") == 1
    assert "continuing" not in done.stderr  # what the other process has written is no earlier run
    assert finetune(data, tmp_path / "one", *arguments).code == 0
    one, two = (load_file(tmp_path / name / "model.safetensors") for name in ("one", "two"))
    for name, weight in one.items():
        assert torch.allclose(weight, two[name], atol=1e-5), name
    alone, together = (record_of(tmp_path / name) for name in ("one", "two"))
    assert alone["metrics"]["after"] == pytest.approx(together["metrics"]["after"], abs=1e-4)
    for name in ("loss", "grad_norm", "eval_loss"):
        steps = ([entry[name] for entry in record["history"] if name in entry] for record in (alone, together))
        assert next(steps) == pytest.approx(next(steps), rel=1e-4), name


def test_no_uid_of_a_series_is_written_down(folder: Path, tmp_path: Path) -> None:
    write_ct(folder / "case")
    data = write_rows(folder / "case.jsonl", [{**taught(0), "image": "case", "frame": number} for number in (1, 2)])
    arguments = ("--recipe", "stage1", "--steps", "1", "--hold-out", "0", "--series", "1.2.3")
    for _ in range(2):  # the second call finds it finished
        outcome = finetune(data, tmp_path / "out", *arguments)
        assert outcome.code == 0, outcome.stderr
    assert "was finished by an earlier run" in outcome.stderr
    assert '"1.2.3"' not in (tmp_path / "out" / "training.json").read_text()
