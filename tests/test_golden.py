"""Both architectures against what the public reference implementation computed (tests/golden/README.md)."""

import hashlib
import json
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np
import pytest
import torch
from make_files import GOLDEN
from PIL import Image
from safetensors.torch import load_file

from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.crops import cut_crops, draw_canvases

# The reference's own noise reaches 2.4e-5, the smallest mistake that was tried 0.039.
LOGITS_TOLERANCE = 1e-3
EMBEDDINGS_TOLERANCE = 1e-4


def _expected(version: str) -> dict[str, Any]:
    return json.loads((GOLDEN / version / "expected.json").read_text(encoding="utf-8"))


EXPECTED = {version: _expected(version) for version in ("v1", "v2")}
CASES = [(version, case) for version, expected in EXPECTED.items() for case in expected["cases"]]


class Reference:
    """One architecture: the network under test, and what the reference said."""

    def __init__(self, version: str) -> None:
        folder = GOLDEN / version
        self.processor = DragonflyProcessor.from_pretrained(folder / "checkpoint")
        self.model = DragonflyForCausalLM.from_pretrained(folder / "checkpoint").eval()
        self.expected = EXPECTED[version]
        self.tensors = load_file(folder / "expected.safetensors")

    def inputs(self, case: str) -> Any:
        expected = self.expected["cases"][case]
        return self.processor(
            text=expected["prompts"],
            images=open_images(case, self.expected),
            is_generate=expected["is_generate"],
            max_length=expected["max_length"],
        )


@pytest.fixture(scope="module")
def references() -> Iterator[dict[str, Reference]]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # with layers this small, threads only wait for one another
    yield {version: Reference(version) for version in EXPECTED}
    torch.set_num_threads(threads)


@pytest.fixture(scope="module", params=CASES, ids="-".join)
def prepared(request, references) -> tuple[Reference, str, Any]:
    """A case and its model inputs, made once for all tests of that case."""
    version, case = request.param
    return references[version], case, references[version].inputs(case)


def open_images(case: str, expected: dict[str, Any]) -> list[Image.Image]:
    return [Image.open(GOLDEN / name) for name in expected["cases"][case]["images"]]


def sha256_of_crops(crops: Iterable[np.ndarray]) -> str:
    each = [hashlib.sha256(np.ascontiguousarray(crop)).hexdigest() for crop in crops]
    return hashlib.sha256("\n".join(each).encode()).hexdigest()


def test_token_ids_and_mask_are_the_references(prepared):
    reference, case, inputs = prepared
    expected = reference.expected["cases"][case]
    ids, mask = inputs["input_ids"], inputs["attention_mask"]
    block = len(reference.processor.image_block())
    assert ids.shape == mask.shape == (len(expected["prompts"]), expected["sequence_length"])
    for row, row_mask, text_ids in zip(ids, mask, expected["text_ids"], strict=True):
        assert row[row_mask == 1][block:].tolist() == text_ids
        assert set(row[row_mask == 0].tolist()) <= {reference.expected["padding_id_in_prompts"]}
    digest = hashlib.sha256(ids.numpy().tobytes() + mask.numpy().tobytes()).hexdigest()
    assert digest == expected["sha256_ids_and_mask"]


def test_grids_8_bit_crops_and_pixels_are_the_references(prepared):
    reference, case, inputs = prepared
    expected = reference.expected["cases"][case]
    assert inputs["pixel_values"].dtype == torch.float32
    for index, image in enumerate(open_images(case, reference.expected)):
        plan = reference.processor.plan(image.size)
        assert [plan.middle_grid, plan.high_grid] == [tuple(grid) for grid in expected["grids"][index]]
        crops = cut_crops(draw_canvases(image, plan), plan)
        assert sha256_of_crops(crops) == expected["sha256_crops_uint8"][index]
        assert sha256_of_crops(inputs["pixel_values"][index].numpy()) == expected["sha256_crops_float32"][index]


def test_embeddings_logits_and_greedy_tokens_are_the_references(prepared, monkeypatch):
    reference, case, inputs = prepared
    expected, tensors = reference.expected["cases"][case], reference.tensors
    if not expected["is_generate"]:
        pytest.skip("the reference only processed this case")
    seen = _record(monkeypatch, reference.model, "embed_images")
    with torch.inference_mode():
        answer = reference.model.generate(
            **inputs,
            max_new_tokens=reference.expected["max_new_tokens"],
            do_sample=False,
            output_logits=True,
            return_dict_in_generate=True,
        )
    [(embeddings, selected)] = seen  # the picture is looked at once

    assert_close(answer.logits[0], tensors[f"{case}/last_logits"], LOGITS_TOLERANCE)
    assert answer.sequences[:, inputs["input_ids"].shape[1] :].tolist() == expected["new_token_ids"]
    assert (None if selected is None else selected.tolist()) == expected.get("selected_high_crops")
    if f"{case}/embedding_row_mean" in tensors:
        rows = embeddings[0, :: reference.expected["embedding_row_step"]]
        assert_close(rows.mean(-1), tensors[f"{case}/embedding_row_mean"], EMBEDDINGS_TOLERANCE)
        assert_close(rows.square().mean(-1).sqrt(), tensors[f"{case}/embedding_row_rms"], EMBEDDINGS_TOLERANCE)


@pytest.mark.parametrize("version", EXPECTED)
def test_forward_gives_the_same_logits_as_generate(references, version):
    reference = references[version]
    with torch.inference_mode():
        output = reference.model(**reference.inputs("batch_of_two"))
    assert_close(output.logits[:, -1], reference.tensors["batch_of_two/last_logits"], LOGITS_TOLERANCE)


def test_the_cases_cover_stops_filler_and_both_sides_of_padding():
    """Guards the data: a smaller set of cases would let the tests above pass for less."""
    for expected in EXPECTED.values():
        cases = expected["cases"]
        batches = {name: case for name, case in cases.items() if len(case["prompts"]) == 2}
        assert {case["is_generate"] for case in batches.values()} == {True, False}
        assert {len(a) < len(b) for a, b in (case["text_ids"] for case in batches.values())} == {True, False}
        stops = [stop for case in cases.values() for stop in case.get("stopped_at", [])]
        assert None in stops and any(stop is not None for stop in stops)
        filler = expected["padding_id_after_stop"]
        assert any(row[-2:] == [filler, filler] for case in batches.values() for row in case.get("new_token_ids", []))


def assert_close(actual: torch.Tensor, expected: torch.Tensor, tolerance: float) -> None:
    torch.testing.assert_close(actual, expected, atol=tolerance, rtol=0)


def _record(monkeypatch: pytest.MonkeyPatch, model: Any, name: str) -> list[Any]:
    """Everything that ``model.name(...)`` returns from now on."""
    method, results = getattr(model, name), []

    def recorded(*args: Any) -> Any:
        results.append(method(*args))
        return results[-1]

    monkeypatch.setattr(model, name, recorded)
    return results
