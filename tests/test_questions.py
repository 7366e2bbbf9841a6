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
        "Isn\u2019t this a fracture?",
        "Aren\u2019t the lungs clear?",
        "Can you see a fracture?",
        "Can you see any place where the cortex is broken?",
        "Can this be pneumonia?",
        "Could this explain the pain?",
        "Can you tell whether it is malignant?",
        "Could you please tell me if there is a fracture?",
        "Would you say this is malignant?",
        "Do you see necrosis?",
        "Can you identify any abnormality?",
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
        "Can you describe this image?",
        "Could you tell me the modality?",
        "Could you please briefly describe the findings?",
        "Can you see what this is?",
        "Do you know which organ is shown?",
        "Can you tell me where the lesion is?",
        "Can\u2019t you explain the finding?",
        "Please, would you list the findings?",
        "",
    ],
)
def test_open_by_form(text: str) -> None:
    assert not is_yes_no(text)
