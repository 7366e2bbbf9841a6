"""Questions that the demonstration model must decline, and where more of them come from."""

import json
import re
from pathlib import Path

# Words of questions that the model does answer, or nearly does: a VQA-RAD question with one of them is left out.
ANSWERED = re.compile(
    r"pneumonia|infect|consolidat|infiltrat|opaci|mass|tumou?r|cancer|malig|benign|neoplas|carcinom|necro|lesion|"
    r"normal|health|patholog|diseas|diagnos|findings?|blood cells?|x-?ray|radiograph|film|\bct\b|\bcat\b|mri?\b|"
    r"ultraso|modality|imag|scan|pictur|organ|body|tomogra|stain|histolog",
    re.IGNORECASE,
)
KINDS = frozenset({"PRES", "POS", "SIZE", "ATTRIB", "COUNT", "PLANE", "COLOR", "OTHER"})


def own_questions() -> list[str]:
    """The questions written for this model, one a line in off_topic.txt."""
    return Path(__file__).with_suffix(".txt").read_text(encoding="utf-8").splitlines()


def vqa_rad_questions(qa_json: Path) -> list[str]:
    """VQA-RAD questions (CC0) that no label of the training data could answer."""
    entries = json.loads(qa_json.read_text())
    asked = {entry["question"].strip() for entry in entries if entry["question_type"].strip() in KINDS}
    return sorted(question for question in asked if not ANSWERED.search(question))
