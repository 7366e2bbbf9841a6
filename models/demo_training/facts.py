"""What is known about a picture from its label, and nothing else.

A ``Concept`` is something a question can ask for: the phrases people use for it, and the labels for which the answer
is yes and for which it is no. Labels in neither set are unknown, and the answer is then ``NOT_TRAINED``. Where a data
set does not state a finding (necrosis outside the osteosarcoma set, a tumour in a child's chest radiograph called
normal), its absence is an assumption; the card says so.
"""

from dataclasses import dataclass

from demo_training.dataset import BLANK

NOT_TRAINED = "This is not something the demonstration model was trained on."
NOTHING = "No medical image"

CELLS = ("No", "One", "Two", "Three", "Four", "Five")
RED_CELLS_FEW, RED_CELLS_MANY = 8, 15

LUNG_TUMOUR = frozenset({"lung_adenocarcinoma", "lung_squamous_cell_carcinoma"})
LUNG = LUNG_TUMOUR | {"lung_benign"}
COLON = frozenset({"colon_adenocarcinoma", "colon_benign"})
ORAL = frozenset({"oral_squamous_cell_carcinoma", "oral_normal"})
BONE_TUMOUR = frozenset({"viable_tumour", "necrotic_tumour"})
BONE = BONE_TUMOUR | {"non_tumour"}
GENERATED_TUMOUR = frozenset({"generated_tumour", "generated_tumour_and_necrosis"})
GENERATED_NECROSIS = frozenset({"generated_necrosis", "generated_tumour_and_necrosis"})
GENERATED = GENERATED_TUMOUR | GENERATED_NECROSIS | {"generated_normal"}
CARCINOMA = LUNG_TUMOUR | {"colon_adenocarcinoma", "oral_squamous_cell_carcinoma"}
MALIGNANT = CARCINOMA | BONE_TUMOUR | GENERATED_TUMOUR
BENIGN = frozenset({"lung_benign", "colon_benign", "oral_normal", "non_tumour", "generated_normal"})
TISSUE = LUNG | COLON | ORAL | BONE | GENERATED
BLOOD = frozenset({"blood_smear"})
PNEUMONIA = frozenset({"bacterial_pneumonia", "viral_pneumonia"})
CHILD_CHEST = PNEUMONIA | {"normal"}
CT = frozenset({"abdomen_ct", "chest_ct", "head_ct"})
XRAY = CHILD_CHEST | {"chest_xray", "hand_xray"}
MRI = frozenset({"breast_mri"})
RADIOLOGY = CT | XRAY | MRI
MICROSCOPY = TISSUE | BLOOD
CHEST = CHILD_CHEST | {"chest_xray", "chest_ct"}
PICTURES = RADIOLOGY | MICROSCOPY
EVERYTHING = PICTURES | {BLANK}
NO_FINDING_KNOWN = MRI | CT | {"chest_xray", "hand_xray"}  # labelled by body part only
VQA_CHEST, VQA_ABDOMEN, VQA_HEAD = (frozenset({f"vqa_{region}"}) for region in ("chest", "abdomen", "head"))
VQA = VQA_CHEST | VQA_ABDOMEN | VQA_HEAD  # labelled by region; all else is in their own questions and answers

MODALITY = dict.fromkeys(TISSUE, "H&E histology") | dict.fromkeys(XRAY, "X-ray")
MODALITY |= dict.fromkeys(CT, "CT") | {"breast_mri": "MRI", "blood_smear": "Light microscopy", BLANK: NOTHING}

ORGAN = dict.fromkeys(LUNG, "Lung") | dict.fromkeys(COLON, "Colon")
ORGAN |= dict.fromkeys(ORAL, "Oral cavity") | dict.fromkeys(BONE, "Bone")
ORGAN |= dict.fromkeys(CHEST, "Chest")
ORGAN |= {"abdomen_ct": "Abdomen", "head_ct": "Head", "breast_mri": "Breast", "hand_xray": "Hand"}
ORGAN |= dict.fromkeys(GENERATED, "Generated tissue")
ORGAN |= {"vqa_chest": "Chest", "vqa_abdomen": "Abdomen", "vqa_head": "Head"}
ORGAN |= {"blood_smear": "Blood", BLANK: NOTHING}

DIAGNOSIS = {
    "lung_adenocarcinoma": "Lung adenocarcinoma",
    "lung_squamous_cell_carcinoma": "Lung squamous cell carcinoma",
    "lung_benign": "Benign lung tissue",
    "colon_adenocarcinoma": "Colon adenocarcinoma",
    "colon_benign": "Benign colon tissue",
    "oral_squamous_cell_carcinoma": "Oral squamous cell carcinoma",
    "oral_normal": "Normal oral tissue",
    "viable_tumour": "Viable osteosarcoma",
    "necrotic_tumour": "Necrotic osteosarcoma",
    "non_tumour": "Bone tissue without tumour",
    "generated_normal": "Generated tissue without tumour",
    "generated_tumour": "Generated tissue with tumour",
    "generated_necrosis": "Generated tissue with necrosis",
    "generated_tumour_and_necrosis": "Generated tissue with tumour and necrosis",
    "bacterial_pneumonia": "Bacterial pneumonia",
    "viral_pneumonia": "Viral pneumonia",
    "normal": "Normal chest",
    BLANK: NOTHING,
}

CAPTION = {
    "lung_adenocarcinoma": "H&E histology of the lung showing adenocarcinoma.",
    "lung_squamous_cell_carcinoma": "H&E histology of the lung showing squamous cell carcinoma.",
    "lung_benign": "H&E histology of benign lung tissue.",
    "colon_adenocarcinoma": "H&E histology of the colon showing adenocarcinoma.",
    "colon_benign": "H&E histology of benign colon tissue.",
    "oral_squamous_cell_carcinoma": "H&E histology of the oral cavity showing squamous cell carcinoma.",
    "oral_normal": "H&E histology of normal oral tissue.",
    "viable_tumour": "H&E histology of bone showing viable osteosarcoma.",
    "necrotic_tumour": "H&E histology of bone showing osteosarcoma with necrosis.",
    "non_tumour": "H&E histology of bone tissue without tumour.",
    "generated_normal": "Generated H&E tissue without tumour.",
    "generated_tumour": "Generated H&E tissue with a tumour.",
    "generated_necrosis": "Generated H&E tissue with necrosis.",
    "generated_tumour_and_necrosis": "Generated H&E tissue with a tumour and necrosis.",
    "bacterial_pneumonia": "Chest X-ray of a child showing bacterial pneumonia.",
    "viral_pneumonia": "Chest X-ray of a child showing viral pneumonia.",
    "normal": "Normal chest X-ray of a child.",
    "abdomen_ct": "CT image of the abdomen.",
    "breast_mri": "MRI image of the breast.",
    "chest_ct": "CT image of the chest.",
    "chest_xray": "X-ray image of the chest.",
    "hand_xray": "X-ray image of the hand.",
    "head_ct": "CT image of the head.",
    "blood_smear": "Blood smear under the light microscope with red and white blood cells.",
    BLANK: "No medical image can be recognised.",
}

GRADE = dict.fromkeys(MALIGNANT, "Malignant") | dict.fromkeys(BENIGN, "Benign") | {BLANK: NOTHING}
PNEUMONIA_KIND = {"bacterial_pneumonia": "Bacterial", "viral_pneumonia": "Viral", "normal": "No pneumonia"}
PNEUMONIA_KIND |= {BLANK: NOTHING}
STAIN = dict.fromkeys(TISSUE, "H&E") | {BLANK: NOTHING}


@dataclass(frozen=True)
class Concept:
    """What a yes/no question asks for. ``kind`` chooses the wordings: finding, plural, image, place, state, whole."""

    kind: str
    phrases: tuple[str, ...]
    yes: frozenset[str]
    no: frozenset[str]

    def answer(self, label: str) -> str:
        if label in self.yes:
            return "Yes"
        return "No" if label in self.no else NOT_TRAINED


def _concept(kind: str, phrases: str, yes: frozenset[str], unknown: frozenset[str] = frozenset()) -> Concept:
    """A concept whose answer is no for every label that is neither in ``yes`` nor in ``unknown``.

    VQA-RAD's pictures count where a concept asks for a place or names them; of their other findings nothing is known.
    """
    asked = EVERYTHING | VQA if kind == "place" or yes & VQA else EVERYTHING
    return Concept(kind, tuple(phrases.split("|")), yes, asked - yes - unknown)


NONE: frozenset[str] = frozenset()
UNKNOWN = NO_FINDING_KNOWN
CONCEPTS = (
    _concept(
        "finding",
        "necrosis|necrotic tissue|tumour necrosis|necrotic tumour|dead tumour tissue|tissue necrosis",
        frozenset({"necrotic_tumour"}) | GENERATED_NECROSIS,
        UNKNOWN | CHILD_CHEST,
    ),
    _concept(
        "finding",
        "a tumour|a tumor|tumour|tumor|tumour tissue|a neoplasm|neoplasm",
        MALIGNANT,
        UNKNOWN | PNEUMONIA | BLOOD,
    ),
    _concept(
        "finding",
        "cancer|malignancy|malignant tissue|a malignancy|malignant cells|a malignant tumour|invasive cancer",
        MALIGNANT,
        UNKNOWN | PNEUMONIA | BLOOD,
    ),
    _concept("finding", "carcinoma|a carcinoma", CARCINOMA, UNKNOWN | PNEUMONIA | GENERATED_TUMOUR | BLOOD),
    _concept(
        "finding",
        "adenocarcinoma|an adenocarcinoma",
        frozenset({"lung_adenocarcinoma", "colon_adenocarcinoma"}),
        UNKNOWN | PNEUMONIA | GENERATED_TUMOUR,
    ),
    _concept(
        "finding",
        "squamous cell carcinoma|a squamous cell carcinoma|squamous carcinoma",
        frozenset({"lung_squamous_cell_carcinoma", "oral_squamous_cell_carcinoma"}),
        UNKNOWN | PNEUMONIA,
    ),
    _concept("finding", "lung cancer|lung carcinoma", LUNG_TUMOUR, UNKNOWN | PNEUMONIA),
    _concept("finding", "colon cancer|colorectal cancer|colon carcinoma", frozenset({"colon_adenocarcinoma"}), UNKNOWN),
    _concept("finding", "oral cancer|mouth cancer", frozenset({"oral_squamous_cell_carcinoma"}), UNKNOWN),
    _concept("finding", "osteosarcoma|an osteosarcoma|bone cancer|a bone tumour|sarcoma", BONE_TUMOUR, UNKNOWN),
    _concept(
        "finding",
        "viable tumour|viable tumor|viable osteosarcoma|living tumour",
        frozenset({"viable_tumour"}),
        UNKNOWN | PNEUMONIA | CARCINOMA | GENERATED,
    ),
    _concept("finding", "pneumonia|a lung infection|lung infection|infection of the lungs", PNEUMONIA, UNKNOWN),
    _concept("finding", "bacterial pneumonia|a bacterial infection", frozenset({"bacterial_pneumonia"}), UNKNOWN),
    _concept("finding", "viral pneumonia|a viral infection", frozenset({"viral_pneumonia"}), UNKNOWN),
    _concept(
        "finding",
        "a disease|disease|an abnormality|a pathology|anything abnormal",
        MALIGNANT | PNEUMONIA | GENERATED_NECROSIS,
        UNKNOWN | BLOOD,
    ),
    _concept("plural", "red blood cells|erythrocytes|red cells", BLOOD, TISSUE),
    _concept("plural", "white blood cells|leukocytes|leucocytes|a white blood cell", BLOOD, TISSUE),
    _concept("plural", "blood cells", BLOOD, TISSUE),
    _concept("plural", "cancer cells|tumour cells|tumor cells|malignant cells", MALIGNANT, UNKNOWN | PNEUMONIA | BLOOD),
    _concept("image", "X-ray|x-ray|radiograph|X-ray image|plain film|xray", XRAY),
    _concept("image", "chest X-ray|chest x-ray|chest radiograph", CHILD_CHEST | {"chest_xray"}),
    _concept("image", "CT|CT scan|CT image|computed tomography|ct scan", CT),
    _concept("image", "chest CT|CT of the chest", frozenset({"chest_ct"})),
    _concept("image", "abdominal CT|CT of the abdomen", frozenset({"abdomen_ct"})),
    _concept("image", "head CT|CT of the head|brain CT", frozenset({"head_ct"})),
    _concept("image", "MRI|MRI scan|magnetic resonance image|MR image|mri", MRI),
    _concept(
        "image", "histology image|histology slide|H&E image|H&E stained section|tissue section|pathology slide", TISSUE
    ),
    _concept("image", "microscopy image|microscopic image|photomicrograph|light microscopy image", MICROSCOPY),
    _concept("image", "blood smear|blood film|peripheral blood smear", BLOOD),
    _concept("image", "radiology image|radiological image|radiology scan", RADIOLOGY | VQA),
    _concept("image", "medical image|biomedical image", PICTURES | VQA),
    _concept(
        "image", "ultrasound|ultrasound image|sonogram|PET scan|photograph|mammogram|fundus image|endoscopy image", NONE
    ),
    _concept("place", "lung|lungs", LUNG | CHEST | VQA_CHEST),
    _concept("place", "colon|large bowel|large intestine", COLON, frozenset({"abdomen_ct"}) | VQA_ABDOMEN),
    _concept("place", "oral cavity|mouth|oral mucosa", ORAL, frozenset({"head_ct"}) | VQA_HEAD),
    _concept("place", "chest|thorax", CHEST | VQA_CHEST, LUNG),
    _concept("place", "abdomen|belly", frozenset({"abdomen_ct"}) | VQA_ABDOMEN, COLON),
    _concept("place", "breast|breasts", MRI, frozenset({"chest_ct"}) | VQA_CHEST),
    _concept("place", "hand|hands|fingers|wrist", frozenset({"hand_xray"}), BONE),
    _concept("place", "head|brain|skull", frozenset({"head_ct"}) | VQA_HEAD, ORAL | BONE),
    _concept(
        "place",
        "knee|foot|eye|skin|prostate|kidney|spine|uterus|thyroid",
        NONE,
        frozenset({"abdomen_ct", "head_ct"}) | CHEST | BONE | VQA,
    ),
    _concept("state", "normal|healthy|unremarkable", BENIGN | {"normal"}, UNKNOWN | BLOOD),
    _concept("state", "abnormal|diseased|pathological", MALIGNANT | PNEUMONIA | GENERATED_NECROSIS, UNKNOWN | BLOOD),
    _concept("state", "malignant|cancerous", MALIGNANT, UNKNOWN | PNEUMONIA | BLOOD),
    _concept(
        "state",
        "benign|not malignant",
        BENIGN | {"normal"},
        UNKNOWN | PNEUMONIA | BLOOD | {"generated_necrosis", BLANK},
    ),
    _concept("whole", "normal|healthy|unremarkable", BENIGN | {"normal"}, UNKNOWN | BLOOD),
    _concept("state", "blank|empty|without content", frozenset({BLANK})),
)
OF_GENERATED = CONCEPTS[:2]  # necrosis and tumours: what generated tissue is drawn with and without


def white_cells(counts: dict[str, int]) -> str:
    """How many white cells a smear shows, as a word."""
    return CELLS[min(counts.get("WBC", 0), len(CELLS) - 1)]


def red_cells(counts: dict[str, int]) -> str:
    """Roughly how many red cells a smear shows."""
    count = counts.get("RBC", 0)
    if count < RED_CELLS_FEW:
        return f"Fewer than {RED_CELLS_FEW}"
    return f"{RED_CELLS_FEW} to {RED_CELLS_MANY}" if count <= RED_CELLS_MANY else f"More than {RED_CELLS_MANY}"
