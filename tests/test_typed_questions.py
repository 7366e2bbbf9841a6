"""Questions with given answers: probabilities from the network, whatever the order, and what is refused."""

import csv
import io
import itertools
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch
from batch_runs import TINY
from PIL import Image
from run_dragonfly import dragonfly, expect_error

from dragonfly_cli.engine.aggregation import Answer, abstain_within
from dragonfly_cli.engine.checkpoints import find_checkpoint
from dragonfly_cli.engine.choices import presentations, read_choice, yes_no_token_ids
from dragonfly_cli.engine.model import Model, load_model
from dragonfly_cli.engine.questions import CUT, Form, Question, as_question
from dragonfly_cli.option_values import Aggregate
from dragonfly_cli.output.votes import p_of_answer, rounded
from dragonfly_med import DragonflyForCausalLM

QUESTION = "Is there a tumour?"
CHOICE = "What kind of image is this?"


@pytest.fixture(scope="module")
def model() -> Model:
    return load_model(find_checkpoint("demo"), "cpu")


@pytest.fixture(autouse=True)
def tiny_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Answers where no other model is named."""
    monkeypatch.setenv("DRAGONFLY_MODEL", str(TINY))


@pytest.fixture(scope="module")
def photo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    path = tmp_path_factory.mktemp("photo") / "photo.png"
    noise = np.random.default_rng(0).normal(128, 80, (150, 200)).clip(0, 255).astype(np.uint8)
    Image.fromarray(noise).convert("RGB").save(path)
    return path


@pytest.fixture
def passes() -> Iterator[list[int]]:
    """The number of tokens in every forward pass of a Dragonfly."""
    seen: list[int] = []

    def note(module: torch.nn.Module, args: object, given: dict, output: object) -> None:
        if isinstance(module, DragonflyForCausalLM):
            seen.append(given["inputs_embeds"].shape[1])

    handle = torch.nn.modules.module.register_module_forward_hook(note, with_kwargs=True)
    yield seen
    handle.remove()


def test_yes_or_no_takes_one_pass(photo: Path, passes: list[int]) -> None:
    assert dragonfly("ask", photo, QUESTION).code == 0
    assert len(passes) == 1
    passes.clear()
    assert dragonfly("ask", photo, QUESTION, "Is it bone?", "Is it blood?").code == 0
    assert len(passes) == 3
    assert max(passes[1:]) < passes[0] / 10  # the picture is not read again


def test_an_option_of_several_tokens_counts_as_a_whole(model: Model, photo: Path) -> None:
    """Against the network's own logits of the whole sequence, read at once."""
    question = Question("options", "Which is it?", ("pleural effusion", "left lung collapse"))
    pixels = model.processor.pixels(Image.open(photo))
    prompt = model.processor.text_ids(model.processor.prompt("Which is it?"))
    spellings = model.spellings(question)
    choice = read_choice(model.reading(pixels), [prompt], spellings)
    begin = model.processor.image_block() + prompt
    mass = dict.fromkeys(question.options, 0.0)
    for option, sequences in spellings.items():
        for ids in sequences:
            assert len(ids) > 1
            row = torch.tensor([begin + list(ids)])
            with torch.inference_mode():
                logits = model.network(input_ids=row, pixel_values=pixels[None]).logits[0, -len(ids) - 1 : -1]
            mass[option] += float(logits.double().log_softmax(-1)[range(len(ids)), ids].sum().exp())
    assert choice.option_mass == pytest.approx(sum(mass.values()), rel=1e-4)
    for option, part in mass.items():
        assert choice.probabilities[option] == pytest.approx(part / sum(mass.values()), rel=1e-4)


def test_the_order_of_options_does_not_decide(photo: Path) -> None:
    said = [
        dragonfly("ask", photo, CHOICE, "--options", options, "--json").json
        for options in ("x-ray,ultrasound,histology", "histology,x-ray,ultrasound", "ultrasound, histology ,x-ray")
    ]
    for record in said:
        assert record["answer"] == max(record["probabilities"], key=record["probabilities"].get)
        assert sum(record["probabilities"].values()) == pytest.approx(1)
        assert record["probabilities"] == pytest.approx(said[0]["probabilities"], abs=1e-4)
        assert 0 <= record["option_mass"] <= 1
    assert list(said[1]["probabilities"]) == ["histology", "x-ray", "ultrasound"]


def test_yes_and_no_as_options_are_options_in_either_order(photo: Path) -> None:
    """They were aggregated and spelt as a yes/no question in one order, and as options in the other."""
    one, other = (dragonfly("ask", photo, QUESTION, "--options", each, "--json").json for each in ("yes,no", "no,yes"))
    assert one["answer"] == other["answer"]
    assert one["probabilities"] == pytest.approx(other["probabilities"], abs=1e-6)
    assert one["option_mass"] == pytest.approx(other["option_mass"], abs=1e-6)


def test_a_table_holds_every_option_beside_yes_and_no(photo: Path) -> None:
    table = dragonfly("ask", photo, QUESTION, "--options", "yes,no,unclear", "-f", "csv").stdout
    (row,) = csv.DictReader(io.StringIO(table))
    assert json.loads(row["probabilities"]).keys() == {"yes", "no", "unclear"}
    assert sum(json.loads(row["probabilities"]).values()) == pytest.approx(1, abs=1e-5)


def test_every_option_stands_once_in_every_place() -> None:
    asked = presentations(Question("options", "Which?", ("c", "a", "b")))
    orders = [text.removeprefix("Which? Answer with one of: ").rstrip(".").split(", ") for text in asked]
    for place in range(3):
        assert {order[place] for order in orders} == {"a", "b", "c"}
    assert asked == presentations(Question("options", "Which?", ("b", "c", "a")))


def test_the_probability_of_an_option_is_the_mean_over_the_orders(model: Model, photo: Path) -> None:
    question = Question("options", CHOICE, ("x-ray", "ultrasound", "histology"))
    reading = model.reading(model.processor.pixels(Image.open(photo)))
    prompts = [model.processor.text_ids(model.processor.prompt(asked)) for asked in presentations(question)]
    alone = [read_choice(reading, [prompt], model.spellings(question)) for prompt in prompts]
    mass = sum(each.option_mass for each in alone)
    record = dragonfly("ask", photo, CHOICE, "-m", "demo", "--options", ",".join(question.options), "--json").json
    assert record["option_mass"] == pytest.approx(mass / 3, rel=1e-3)
    assert all(each.option_mass != pytest.approx(mass / 3, rel=1e-3) for each in alone)  # so that one alone would show
    for option, told in record["probabilities"].items():
        expected = sum(each.probabilities[option] * each.option_mass for each in alone) / mass
        assert told == pytest.approx(expected, rel=1e-3)


def test_an_answer_that_goes_on_to_another_option_is_not_counted_twice(model: Model, photo: Path) -> None:
    """As 10 beside 1, where it is two tokens; here with the tokens that the network likes best."""
    reading = model.reading(model.processor.pixels(Image.open(photo)))
    prompt = model.processor.text_ids(model.processor.prompt(CHOICE))
    first = reading.logits(prompt).double().softmax(-1)[-1]
    one = int(first.argmax())
    second = reading.logits([*prompt, one]).double().softmax(-1)[-1]
    two = int(second.argmax())
    choice = read_choice(reading, [prompt], {"1": [(one,)], "10": [(one, two)]})
    both, longer = float(first[one]), float(first[one] * second[two])
    assert longer > 0.1
    assert choice.option_mass == pytest.approx(both, rel=1e-4)
    assert choice.probabilities == pytest.approx({"1": 1 - longer / both, "10": longer / both}, abs=1e-4)


def test_a_scale_gives_a_probability_to_each_of_its_numbers(photo: Path) -> None:
    record = dragonfly("ask", photo, "How malignant is it?", "--scale", "1-10", "--json").json
    assert list(record["probabilities"]) == [str(number) for number in range(1, 11)]
    assert sum(record["probabilities"].values()) == pytest.approx(1)
    assert 1 <= int(record["answer"]) <= 10
    assert record["settings"]["type"] == "scale"


def test_ten_is_not_one(model: Model, photo: Path) -> None:
    """Where 10 is two tokens, an answer that goes on after 1 is not 1."""
    reading = model.reading(model.processor.pixels(Image.open(photo)))
    prompt = model.processor.text_ids(model.processor.prompt("How many?"))
    one, more = 5, 6
    both = read_choice(reading, [prompt], {"1": [(one,)], "10": [(one, more)]})
    alone = read_choice(reading, [prompt], {"1": [(one,)]})
    assert both.option_mass == pytest.approx(alone.option_mass, rel=1e-6)


def test_all_answers_together_are_one_and_never_more(model: Model, photo: Path) -> None:
    """The sum of 2048 roundings exceeds it."""
    reading = model.reading(model.processor.pixels(Image.open(photo)))
    prompt = model.processor.text_ids(model.processor.prompt("Which?"))
    words = {str(token): [(token,)] for token in range(model.network.config.text_config.vocab_size)}
    choice = read_choice(reading, [prompt], words)
    assert 1 - 1e-9 < choice.option_mass <= 1
    said = reading.logits(prompt)[-1].double().softmax(-1)
    assert list(choice.probabilities.values()) == pytest.approx(said.tolist(), rel=1e-6)


def test_the_type_stands_above_the_form_of_the_question() -> None:
    assert as_question("Tumour present", Form("yesno")).options == ("yes", "no")
    assert as_question("Is it red?", Form("open")).options == ()
    assert as_question("Is it red?").kind == "yesno"


def test_three_votes_of_five_are_as_far_apart_as_their_margin() -> None:
    """Which in binary is a little less than 0.2."""
    said = Answer(as_question(QUESTION), "Yes", {"yes": 3 / 5, "no": 2 / 5}, 1.0, Aggregate.vote, [])
    assert abstain_within(said, 0.2) is said
    assert abstain_within(said, 0.21).abstained


def test_abstaining_is_an_answer(photo: Path) -> None:
    outcome = dragonfly("ask", photo, QUESTION, "--abstain", "1", "--json")
    assert outcome.code == 0
    record = outcome.json
    assert (record["answer"], record["abstained"]) == ("uncertain", True)
    assert record["fields"][0]["answer"] in ("Yes", "No")
    yes, no = record["probabilities"].values()
    closer = str(abs(yes - no) / 2)
    assert dragonfly("ask", photo, QUESTION, "--abstain", closer, "--json").json["abstained"] is False
    assert dragonfly("ask", photo, QUESTION, "--abstain", "1").stdout.startswith("uncertain (")


def test_every_spelling_of_the_vocabulary_counts() -> None:
    texts = ["Yes", " YES", "yesterday", "no", "\nNo", "not", "know", "NO"]

    class Tokenizer:
        def encode(self, text: str, add_special_tokens: bool = True) -> list[int]:
            raise NotImplementedError

        def decode(self, token_ids: list[int]) -> str:
            return texts[token_ids[0]]

        def get_vocab(self) -> dict[str, int]:
            return {text.replace(" ", "\u0120").replace("\n", "\u010a"): place for place, text in enumerate(texts)}

    assert yes_no_token_ids(Tokenizer()) == {"yes": [0, 1], "no": [3, 4, 7]}


def test_an_answer_obeys_its_schema(photo: Path, tmp_path: Path) -> None:
    schema = tmp_path / "finding.json"
    properties = {"organ": {"enum": ["lung", "liver"]}, "seen": {"type": "boolean"}}
    schema.write_text(json.dumps({"type": "object", "properties": properties, "required": ["organ", "seen"]}))
    record = dragonfly("ask", photo, "Is the lung shown?", "--schema", schema, "--json", "--max-tokens", "90").json
    if CUT not in record["warnings"]:
        answer = json.loads(record["answer"])
        assert answer["organ"] in ("lung", "liver") and isinstance(answer["seen"], bool)
    assert record["answer"].startswith('{"organ": "l') or record["answer"].startswith('{"organ":"l')
    assert record["settings"]["schema"]["required"] == ["organ", "seen"]


@pytest.mark.parametrize(
    ("schema", "most", "is_cut"),
    [
        ({"type": "integer", "minimum": 10**6, "maximum": 10**7 - 1}, 2, True),  # 127128, which is JSON
        ({"type": "integer", "minimum": 1}, 1, True),  # more digits might have come
        ({"enum": ["ab"]}, 1, True),
        ({"enum": [True]}, 4, False),  # whole with its last token
        (None, 1, True),
    ],
)
def test_an_answer_is_cut_where_more_might_have_come(
    photo: Path, tmp_path: Path, schema: dict | None, most: int, is_cut: bool
) -> None:
    """Whatever JSON is made of its beginning, and written by itself or beside another."""
    (tmp_path / "schema.json").write_text(json.dumps(schema))
    held = ("--schema", tmp_path / "schema.json") if schema else ()
    for questions in (("What is it?",), ("What is it?", "What is it?")):
        outcome = dragonfly("ask", photo, *questions, *held, "-m", TINY, "--max-tokens", str(most), "--json")
        assert outcome.code == 0
        for record in outcome.json if len(questions) > 1 else [outcome.json]:
            assert (CUT in record["warnings"]) == is_cut, record["answer"]
        assert outcome.stderr.count(f"warning: {CUT}\n") == len(questions) * is_cut


def test_the_time_of_a_control_is_without_that_of_reading(photo: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that is one second on whenever it is looked at."""
    monkeypatch.setattr("dragonfly_cli.engine.answering.perf_counter", itertools.count().__next__)
    timing = dragonfly("ask", photo, QUESTION, "--control", "blank", "--json").json["timing"]
    assert timing == {"read_s": 1, "encode_s": 1, "generate_s": 1, "search_s": 0, "control_s": 2}


@pytest.mark.parametrize("kind", ["blank", "shuffle"])
def test_a_control_stands_beside_the_answer(photo: Path, kind: str) -> None:
    seen, free = dragonfly("ask", photo, QUESTION, CHOICE, "--control", kind, "--json").json
    control = seen["control"]
    assert control["kind"] == kind
    assert control["distance"] == pytest.approx(abs(seen["probabilities"]["yes"] - control["probabilities"]["yes"]))
    assert control["probabilities"] != seen["probabilities"]
    assert seen["probabilities"] == dragonfly("ask", photo, QUESTION, "--json").json["probabilities"]
    assert free["control"]["probabilities"] is None
    assert 0 <= free["control"]["distance"] <= 1


def test_of_an_empty_picture_nothing_is_lost_by_blanking_it(tmp_path: Path) -> None:
    Image.new("RGB", (224, 224), (122, 116, 104)).save(tmp_path / "even.png")  # CLIP's mean colour
    record = dragonfly("ask", tmp_path / "even.png", QUESTION, "--control", "blank", "--json").json
    assert record["control"]["distance"] < 0.01
    assert any("the picture hardly mattered" in warning for warning in record["warnings"])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--options", "benign"], ["only one"]),
        (["--options", "benign,,malignant"], ["empty"]),
        (["--options", "benign,Benign"], ["twice"]),
        (["--options", "\u00e9,e\u0301"], ["twice"]),
        (["--options", "\u0131x,Ix"], ["twice"]),  # the small letter without a dot, whose capital is I
        (["--options", "a\udcff,b"], ["not valid UTF-8"]),
        (["--options", "tumour,tumour cells"], ["tumour cells begins with tumour"]),
        (["--options", "a,b", "--scale", "1-5"], ["--options and --scale contradict"]),
        (["--options", "a,b", "--type", "yesno"], ["--options contradicts --type yesno"]),
        (["--scale", "1-5", "--type", "open"], ["--scale contradicts --type open"]),
        (["--type", "options"], ["needs --options"]),
        (["--type", "scale"], ["needs --scale"]),
        (["--scale", "5-1"], ["must rise"]),
        (["--scale", "1-99"], ["at most"]),
        (["--scale", "good-bad"], ["not a scale"]),
        (["--abstain", "2"], ["--abstain"]),
        (["--control", "upside-down"], ["--control"]),
        (["--question", " "], ["a question is empty"]),
    ],
)
def test_what_cannot_be_is_told_before_any_file_is_opened(arguments: list[str], words: list[str]) -> None:
    expect_error(dragonfly("ask", "nowhere.svs", QUESTION, *arguments), 2, *words)


@pytest.mark.parametrize(
    ("schema", "code", "word"),
    [
        ("false", 2, "a schema must be a JSON object"),
        ('{"enum": []}', 2, "nsatisfiable"),
        ('{"type": "object", "required": ["a"], "properties": {"a": false}}', 2, "nsatisfiable"),
        ('{"type": "nonsense"}', 2, "nonsense"),
        ('{"enum": ["\\ud800", "a"]}', 2, "half of a character"),
        ('{"items": ' * 130 + "{}" + "}" * 130, 2, "recursion limit"),
        ('{"type": "integer", "minimum": 1' + "0" * 400 + "}", 2, "out of range"),
        ('{"$ref": "#"}', 2, "nothing but that it is itself"),
        ('{"items": {"type": "number", "exclusiveMinimum": 0, "maximum": 0.05}}', 2, "would let 0 itself through"),
        ('{"exclusiveMinimum": 1.0, "maximum": 1.5}', 2, "would let 1.0 itself through"),
        ('{"type": "number", "minimum": -0.5, "exclusiveMaximum": 0}', 2, "would let 0 itself through"),
        ('{"anyOf": [{"const": 12345678901234567890}]}', 2, "12345678901234567890 would be rounded"),
        ('{"enum": ["a", {"b": -9007199254740993}]}', 2, "-9007199254740993 would be rounded"),
        ('{"exclusiveMinimum": 0, "exclusiveMaximum": 1, "type": "number"}', 3, "nowhere.svs"),
        ('{"enum": [9007199254740992, 0.1, true]}', 3, "nowhere.svs"),
        ("no json", 4, "cannot read a schema"),
        ('{"enum": [NaN, 1e400]}', 4, "cannot read a schema"),
    ],
)
def test_what_cannot_be_held_to_is_told_before_any_file_is_opened(
    tmp_path: Path, schema: str, code: int, word: str
) -> None:
    (tmp_path / "schema.json").write_text(schema)
    expect_error(dragonfly("ask", "nowhere.svs", QUESTION, "--schema", tmp_path / "schema.json"), code, word)


def test_a_schema_without_an_end_is_told_and_not_answered_by_its_beginning(photo: Path, tmp_path: Path) -> None:
    of_itself = {"type": "object", "properties": {"x": {"$ref": "#/$defs/a"}}, "required": ["x"]}
    (tmp_path / "schema.json").write_text(json.dumps({"$ref": "#/$defs/a", "$defs": {"a": of_itself}}))
    outcome = dragonfly("ask", photo, "What is it?", "--schema", tmp_path / "schema.json", "--json")
    expect_error(outcome, 2, "--schema: no answer can be held to it")


def test_a_token_that_ends_an_answer_cannot_stand_in_one(photo: Path, tmp_path: Path) -> None:
    (tmp_path / "schema.json").write_text('{"const": "<\\u007ceot_id|>"}')
    outcome = dragonfly("ask", photo, "What is it?", "--schema", tmp_path / "schema.json", "-m", TINY)
    expect_error(outcome, 2, "the schema cannot be held to: <|eot_id|> stands in it")


def test_no_schema_file(tmp_path: Path) -> None:
    expect_error(dragonfly("ask", "nowhere.svs", QUESTION, "--schema", tmp_path / "gone.json"), 3, "gone.json")


def test_a_question_of_20000_tokens_is_refused(photo: Path) -> None:
    expect_error(dragonfly("ask", photo, "necrosis " * 20_000), 2, "too long")


@pytest.mark.parametrize(
    ("likeliest", "told"), [(0.5, "p = 0.50"), (0.994, "p = 0.99"), (0.9951, "p > 0.99"), (1.0, "p > 0.99")]
)
def test_no_probability_is_told_as_certainty(likeliest: float, told: str) -> None:
    assert p_of_answer({"no": 1 - likeliest, "yes": likeliest}) == told
    assert rounded(0.004) == rounded(0.0) == "< 0.01"
