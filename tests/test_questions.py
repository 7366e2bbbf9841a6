"""Which questions are answered with probabilities of yes and no."""

import pytest

from dragonfly_cli.engine.questions import is_yes_no


@pytest.mark.parametrize(
    "text",
    [
        "Is there necrosis?",
        "are the lungs clear",
        "Does this slide show carcinoma?",
        "Isn't this a fracture?",
        "In this radiograph, is there a pleural effusion?",
        "Tell me: tumour present? Answer yes or no.",
        "Is the border regular or not?",
        "Look at the left lung. Is it collapsed?",
        "  Has the patient had surgery?",
    ],
)
def test_yes_no_by_form(text: str) -> None:
    assert is_yes_no(text)


@pytest.mark.parametrize(
    "text",
    [
        "What is this?",
        "Is it benign or malignant?",
        "Describe the image.",
        "Which organ is shown?",
        "Isolate the nuclei",
        "How many cells are there?",
        "Canny edges: what do they show?",
        "",
    ],
)
def test_open_by_form(text: str) -> None:
    assert not is_yes_no(text)
