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
        "\ufeffIs there necrosis?",
        "\u200bIs there necrosis?",
        "Is\u200e there necrosis?",
        '"Is there necrosis?"',
        "\u201cIs there necrosis?\u201d",
        "- Is there necrosis?",
        "1) Is there necrosis?",
        "2. Is there necrosis?",
        "Q: is there necrosis?",
        "Question 3: Is there necrosis?",
        "Is there pain w/o fracture?",
        "Is this H/E stained?",
        "Is glucose above 100 mg/dl?",
        "Is there a fracture, please?",
        "Is there a haemorrhage and oedema?",
        "Is there a mass? Yes/no",
        "Was contrast used?",
        "Do you see a lesion in this image?",
        "Have the ribs healed?",
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
        "Is it benign/malignant?",
        "Is the lesion benign, malignant?",
        "Is it A vs B?",
        "Is it A versus B?",
        "Is it a CT/MRI/X-ray?",
        "Is there a fracture, and if so where?",
        "Is there a fracture (if so, where)?",
        "Is there a mass? If yes, in which lobe?",
        "Is there a mass and how large is it?",
        "Is there a mass - where?",
        "Is there a mass? Describe it.",
        "Is this H&E? What organ is it?",
        "Be specific: which organ is shown?",
        "Have a look and name the organ.",
        "Have a close look.",
        "Do name the organ.",
        "Was zeigt das Bild?",
        "Was ist das?",
        "May 2019 radiograph: what is the finding?",
        "",
    ],
)
def test_open_by_form(text: str) -> None:
    assert not is_yes_no(text)
