"""The training core on tiny networks: what is learnt, from which ids, and that nothing else changes."""

import os
import shutil
from dataclasses import replace
from pathlib import Path

import bitsandbytes
import numpy as np
import pytest
import torch
from bitsandbytes.nn import Linear4bit
from make_files import GOLDEN
from PIL import Image
from transformers import TrainerCallback

from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor, PromptTooLongError
from dragonfly_med.quantized_loading import open_in_4_bit
from dragonfly_med.training import Exchange, Sample, Settings, Teaching, TrainingRun
from dragonfly_med.training.learner import Learner
from dragonfly_med.training.recipes import Adapters
from dragonfly_med.training.sequences import SequenceMaker
from dragonfly_med.training.training import last_checkpoint

CONVERSATIONS = [
    [Exchange("Is there necrosis?", "Yes")],
    [Exchange("What is shown?", "a lung"), Exchange("Which one?", "the left one, seen from the front")],
    [Exchange("Is this bone?", "No", system="Be brief.")],
]


def open_network(architecture: str = "v1") -> DragonflyForCausalLM:
    return DragonflyForCausalLM.from_pretrained(GOLDEN / architecture / "checkpoint", dtype=torch.float32)


def open_processor(architecture: str = "v1") -> DragonflyProcessor:
    return DragonflyProcessor.from_pretrained(GOLDEN / architecture / "checkpoint")


@pytest.fixture(scope="module")
def processor() -> DragonflyProcessor:
    return open_processor()


@pytest.fixture
def network() -> DragonflyForCausalLM:
    return open_network()


@pytest.fixture(scope="module")
def pixels(processor: DragonflyProcessor) -> list[torch.Tensor]:
    return noise_and_snow(processor)


def noise_and_snow(processor: DragonflyProcessor) -> list[torch.Tensor]:
    noise = np.random.default_rng(3).integers(0, 256, (90, 120, 3), dtype=np.uint8)
    return [processor.pixels(Image.fromarray(noise)), processor.pixels(Image.new("RGB", (120, 90), "white"))]


def loss_and_gradients(learner: Learner, maker: SequenceMaker, samples: list[Sample]) -> tuple[float, dict]:
    learner.zero_grad()
    loss = learner(**maker.batch(samples))["loss"]
    loss.backward()
    return float(loss.detach()), {n: p.grad.clone() for n, p in learner.named_parameters() if p.grad is not None}


@pytest.mark.parametrize(
    ("architecture", "teaching"),
    [("v1", Teaching()), ("v1", Teaching(loss="reference", length_power=0.5)), ("v2", Teaching(loss="reference"))],
)
def test_packing_teaches_what_each_row_alone_does(architecture: str, teaching: Teaching) -> None:
    network, processor = open_network(architecture), open_processor(architecture)
    learner, maker = Learner(network, processor), SequenceMaker(processor, teaching)
    with torch.no_grad():
        noise, snow = network.image_features(torch.stack(noise_and_snow(processor)))
    packed, gradients = loss_and_gradients(
        learner, maker, [Sample(CONVERSATIONS, features=noise), Sample(CONVERSATIONS[:1], features=snow)]
    )
    alone = [Sample([conversation], features=noise) for conversation in CONVERSATIONS]
    apart, expected = loss_and_gradients(learner, maker, [*alone, Sample(CONVERSATIONS[:1], features=snow)])
    assert packed == pytest.approx(apart, abs=1e-4)
    assert gradients.keys() == expected.keys()
    for name, gradient in gradients.items():
        assert torch.allclose(gradient, expected[name], atol=1e-4), name


def test_one_row_is_what_the_network_itself_computes(network, processor, pixels) -> None:
    """The loss by hand, from the logits of the published forward pass."""
    exchange = Exchange("Is there necrosis?", "Yes, some")
    answer = processor.tokenizer.encode("Yes, some<|eot_id|>", add_special_tokens=False)
    inputs = processor(text=[processor.prompt(exchange.question) + "Yes, some<|eot_id|>"], images=None)
    ids = torch.cat([torch.tensor([processor.image_block()]), inputs["input_ids"]], dim=1)
    with torch.no_grad():
        logits = network(input_ids=ids, pixel_values=pixels[0][None]).logits[0, -len(answer) - 1 : -1]
        expected = torch.nn.functional.cross_entropy(logits, torch.tensor(answer))
        learner, maker = Learner(network, processor), SequenceMaker(processor, Teaching())
        loss = learner(**maker.batch([Sample([[exchange]], pixels[0])]))["loss"]
        features = network.image_features(pixels[0][None])[0]
        from_features = learner(**maker.batch([Sample([[exchange]], features=features)]))["loss"]
    assert float(loss) == pytest.approx(float(expected), abs=1e-4)
    assert float(from_features) == pytest.approx(float(expected), abs=1e-4)


def learnt_text(processor: DragonflyProcessor, teaching: Teaching, conversation: list[Exchange]) -> list[str]:
    part = SequenceMaker(processor, teaching).text_part([conversation])
    return [processor.decode([i]) for i, weight in zip(part.ids, part.weights, strict=True) if weight > 0]


def test_which_ids_are_learnt(processor: DragonflyProcessor) -> None:
    conversation = [Exchange("Is there a nodule?", "No"), Exchange("Is it a lung?", "Yes")]
    answers = learnt_text(processor, Teaching(), conversation)
    assert "".join(answers) == "No<|eot_id|>Yes<|eot_id|>"
    everything = learnt_text(processor, Teaching(loss="reference"), conversation)
    text = processor.prompt("Is there a nodule?") + "No<|eot_id|>" + processor.prompt("Is it a lung?") + "Yes<|eot_id|>"
    assert "".join(everything) == text + "<|end_of_text|>"


def test_conversations_begin_anew_after_the_image(processor: DragonflyProcessor) -> None:
    part = SequenceMaker(processor, Teaching()).text_part(CONVERSATIONS)
    begins = [i for i, block in enumerate(part.blocks) if i == 0 or part.blocks[i - 1] != block]
    assert len(begins) == 3
    assert [part.positions[i] for i in begins] == [0, 0, 0]
    assert [processor.decode([part.ids[i]]) for i in begins] == ["<|begin_of_text|>"] * 3
    assert sorted(set(part.answers)) == [-1, 0, 1, 2, 3]


def test_nothing_is_cut(processor: DragonflyProcessor) -> None:
    maker = SequenceMaker(processor, Teaching(max_length=1000))
    many = [[Exchange("Is there necrosis?", "Yes")]] * 20
    packs = maker.packed(many)
    assert [one for pack in packs for one in pack] == many
    assert len(packs) > 1
    assert all(len(maker.text_part(pack).ids) <= maker.text_room for pack in packs)
    with pytest.raises(PromptTooLongError, match="tokens"):
        maker.packed([[Exchange("why " * 600, "Yes")]])
    with pytest.raises(PromptTooLongError, match="fit behind the image"):
        maker.text_part(many)


UNTRAINED = Adapters(dropout=0.0)


class Stop(TrainerCallback):
    """Interrupts after a step, as Ctrl-C does."""

    def __init__(self, after: int | None) -> None:
        self.after = after

    def on_step_end(self, args, state, control, **kwargs) -> None:
        if state.global_step == self.after:
            raise KeyboardInterrupt


def settings(recipe: str, steps: int = 2, **more) -> Settings:
    return Settings(recipe=recipe, steps=steps, batch=2, accumulate=1, learning_rate=1e-3, use_cpu=True, **more)


def noise_or_snow(network, pixels) -> list[Sample]:
    with torch.no_grad():
        features = network.image_features(torch.stack(pixels))
    return [
        Sample([[Exchange("Is it snow?", answer)]], features=row)
        for row, answer in zip(features, ("No", "Yes"), strict=True)
    ]


CHANGES = {
    "stage1": ("vision_embed_tokens.",),
    "language": ("vision_embed_tokens.", "language_model."),
    "stage2": ("vision_embed_tokens.", "language_model.", "image_encoder."),
}


@pytest.mark.parametrize("recipe", CHANGES)
def test_only_what_a_recipe_names_changes(network, processor, pixels, tmp_path: Path, recipe: str) -> None:
    before = {name: value.clone() for name, value in network.state_dict().items()}
    samples = [Sample([[Exchange("Is it snow?", a)]], p) for p, a in zip(pixels, ("No", "Yes"), strict=True)]
    TrainingRun(network, processor, samples, [], settings(recipe), tmp_path).train()
    changed = {name for name, value in network.state_dict().items() if not torch.equal(value, before[name])}
    assert changed
    assert all(name.startswith(CHANGES[recipe]) for name in changed)
    for prefix in CHANGES[recipe]:
        assert any(name.startswith(prefix) for name in changed), prefix


def test_the_projector_s_weights_do_not_decay(network, processor, pixels, tmp_path: Path) -> None:
    run = TrainingRun(network, processor, noise_or_snow(network, pixels), [], settings("language"), tmp_path)
    decaying = run.trainer.get_decay_parameter_names(run.trainer.model)
    assert not [name for name in decaying if "embed_tokens" in name or "norm" in name]
    assert "network.language_model.model.layers.0.self_attn.q_proj.weight" in decaying


def test_batches_that_are_accumulated_teach_what_one_large_batch_does(processor, pixels, tmp_path: Path) -> None:
    """Every id counts the same, also where the answers of one batch are longer than those of another."""
    network = open_network()
    short, long = noise_or_snow(network, pixels)
    samples = [short, replace(long, conversations=[[Exchange("Where?", "in the left one, seen from the front")]])]
    steps = []
    for batch, accumulate in ((2, 1), (1, 2)):
        how = replace(settings("stage1", 1), batch=batch, accumulate=accumulate)
        run = TrainingRun(open_network(), processor, samples, [], how, tmp_path / str(batch))
        steps.append(run.train().history[0])
    with torch.no_grad():
        expected = Learner(network, processor)(**SequenceMaker(processor, Teaching()).batch(samples))["loss"]
    assert [step["loss"] for step in steps] == pytest.approx([float(expected)] * 2, rel=1e-4)
    assert steps[0]["grad_norm"] == pytest.approx(steps[1]["grad_norm"], rel=1e-4)


def test_a_killed_run_ends_like_an_undisturbed_one(processor, pixels, tmp_path: Path) -> None:
    def trained(work: Path, stop_after: int | None) -> dict[str, torch.Tensor]:
        network = open_network()
        samples = noise_or_snow(network, pixels) * 3
        run = TrainingRun(network, processor, samples, [], settings("lora", 4, save_every=2), work, [Stop(stop_after)])
        try:
            assert max(entry["step"] for entry in run.train().history) == 4
        except KeyboardInterrupt:
            assert stop_after
        return {name: value for name, value in network.state_dict().items() if "lora_" in name}

    undisturbed = trained(tmp_path / "one", None)
    halfway = trained(tmp_path / "two", 3)
    (tmp_path / "two" / "checkpoint-9").mkdir()  # what a kill in the middle of a save leaves
    resumed = trained(tmp_path / "two", None)
    finished = trained(tmp_path / "two", None)  # killed between the last step and what follows it
    assert all(torch.equal(finished[name], resumed[name]) for name in resumed)
    assert any(not torch.equal(halfway[name], undisturbed[name]) for name in undisturbed)
    for name, value in undisturbed.items():
        assert torch.allclose(value, resumed[name], atol=1e-7), name


def test_the_history_and_time_of_a_run_are_those_of_all_its_parts(processor, pixels, tmp_path: Path) -> None:
    network = open_network()
    samples = noise_or_snow(network, pixels)
    arguments = (network, processor, samples, [], settings("stage1", 4, save_every=2), tmp_path)
    with pytest.raises(KeyboardInterrupt):
        TrainingRun(*arguments, [Stop(3)]).train()
    trained = TrainingRun(*arguments).train()
    assert [entry["step"] for entry in trained.history] == [1, 2, 3, 4]
    seconds = [entry["seconds"] for entry in trained.history]
    assert 0 < seconds[0] < seconds[1] == trained.earlier_seconds < seconds[2] < seconds[3]


def test_a_short_run_is_saved_on_its_way(network, processor, pixels, tmp_path: Path) -> None:
    run = TrainingRun(
        network, processor, noise_or_snow(network, pixels), [], settings("stage1", 10), tmp_path, [Stop(7)]
    )
    with pytest.raises(KeyboardInterrupt):
        run.train()
    assert last_checkpoint(tmp_path) == tmp_path / "checkpoint-6"


def test_a_torn_checkpoint_is_not_gone_on_from(network, processor, pixels, tmp_path: Path) -> None:
    made = tmp_path / "made"
    samples = noise_or_snow(network, pixels)
    TrainingRun(network, processor, samples, [], settings("stage1", 2, save_every=1), made).train()
    assert last_checkpoint(made) == made / "checkpoint-2"
    for name in ("model.safetensors", "optimizer.pt", "scheduler.pt", "rng_state.pth", "trainer_state.json"):
        torn, lost = (Path(shutil.copytree(made, tmp_path / f"{how}-{name}")) for how in ("torn", "lost"))
        os.truncate(torn / "checkpoint-2" / name, (torn / "checkpoint-2" / name).stat().st_size - 40)
        (lost / "checkpoint-2" / name).unlink()
        assert [last_checkpoint(torn), last_checkpoint(lost)] == [torn / "checkpoint-1", lost / "checkpoint-1"]


def test_a_checkpoint_that_not_all_processes_wrote_is_not_gone_on_from(network, processor, pixels, tmp_path) -> None:
    samples = noise_or_snow(network, pixels)
    TrainingRun(network, processor, samples, [], settings("stage1", 2, save_every=1), tmp_path).train()
    for checkpoint in tmp_path.glob("checkpoint-*"):
        (checkpoint / "rng_state.pth").rename(checkpoint / "rng_state_0.pth")
    shutil.copy(tmp_path / "checkpoint-1" / "rng_state_0.pth", tmp_path / "checkpoint-1" / "rng_state_1.pth")
    assert last_checkpoint(tmp_path, processes=2) == tmp_path / "checkpoint-1"


def test_4_bit_weights_pass_gradients_on_also_after_an_evaluation(processor, pixels, tmp_path: Path) -> None:
    """The adapters' gradients are those of the same network with its weights dequantized."""
    network = open_in_4_bit(GOLDEN / "v1" / "checkpoint", torch.float32)
    weights = {n: dequantized(n, network) for n, module in network.named_modules() if isinstance(module, Linear4bit)}
    samples = noise_or_snow(network, pixels)
    run = TrainingRun(network, processor, samples, samples, settings("qlora", adapters=UNTRAINED), tmp_path / "four")
    run.score(samples)
    full = open_network()
    for name, weight in weights.items():
        full.get_submodule(name).weight.data = weight
    other = TrainingRun(full, processor, samples, [], settings("lora", adapters=UNTRAINED), tmp_path / "full")
    batch = SequenceMaker(processor, Teaching()).batch(samples)
    gradients = []
    for learner in (run.trainer.model, other.trainer.model):
        learner(**batch)["loss"].backward()
        gradients.append({name: p.grad for name, p in learner.named_parameters() if "lora_B" in name})
    assert len(gradients[0]) == 2 * 7  # two layers of seven linears
    for name, gradient in gradients[0].items():
        assert gradient.abs().max() > 0, name
        # backward, 4-bit weights are dequantized to bfloat16
        assert (gradient - gradients[1][name]).norm() < 0.05 * gradients[1][name].norm(), name


def dequantized(name: str, network) -> torch.Tensor:
    weight = network.get_submodule(name).weight
    return bitsandbytes.functional.dequantize_4bit(weight.data, weight.quant_state).float()


def test_gradient_checkpointing_and_mixed_precision_learn_the_same(processor, pixels, tmp_path: Path) -> None:
    samples = [Sample([[Exchange("Is it snow?", a)]], p) for p, a in zip(pixels, ("No", "Yes"), strict=True)]
    weights = []
    for number, more in enumerate(({}, {"gradient_checkpointing": True}, {"mixed_precision": True})):
        network = open_network()
        run = TrainingRun(network, processor, samples, [], settings("stage2", **more), tmp_path / str(number))
        run.train()
        weights.append(torch.cat([parameter.detach().flatten() for parameter in network.parameters()]))
    start = torch.cat([parameter.detach().flatten() for parameter in open_network().parameters()])
    learnt = (weights[0] - start).norm()
    assert (weights[1] - weights[0]).norm() < 1e-3 * learnt
    assert (weights[2] - weights[0]).norm() < 0.5 * learnt


def test_a_released_network_answers_and_sees(processor, pixels, tmp_path: Path) -> None:
    network = open_network()
    run = TrainingRun(network, processor, noise_or_snow(network, pixels), [], settings("stage1"), tmp_path)
    run.train()
    released = run.release()
    inputs = processor(text=processor.prompt("Is it snow?"))["input_ids"]
    ids = torch.cat([torch.tensor([processor.image_block()]), inputs], dim=1)
    with torch.no_grad():
        seen, blank = (released(input_ids=ids, pixel_values=p[None]).logits[0, -1] for p in pixels)
    assert (seen - blank).abs().max() > 1e-3
    assert released.generate(input_ids=ids, pixel_values=pixels[0][None], max_new_tokens=3).shape[1] > ids.shape[1]
