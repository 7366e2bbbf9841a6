"""Stage 4: the frozen encoder's features of the pictures that the questions are about, in one file.

Most pictures give their low and middle crops, which is cheap to learn from; some give all twenty-nine, to learn from
exactly what the model will see.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from demo_training.augment import normalise, to_unit
from demo_training.encoder import Student
from demo_training.make_rows import VIEWS
from demo_training.refine_encoder import encoder_of
from demo_training.scores import FIRST_HIGH, views

ALL_CROPS = 29
AT_A_TIME = 6  # pictures


class Cut(Dataset[torch.Tensor]):
    """The crops of each picture: uint8 [crops, height, width, 3]."""

    def __init__(self, files: list[Path], crops: int) -> None:
        self.files, self.crops = files, crops

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            return torch.from_numpy(np.stack(views(image.convert("RGB"), self.crops)))


@torch.inference_mode()
def encode(student: Student, files: list[Path], crops: int) -> torch.Tensor:
    """float16 features [pictures, crops, tokens, width]."""
    encoded = []
    for cut in DataLoader(Cut(files, crops), AT_A_TIME, num_workers=1):  # it cuts ahead of the encoder
        with torch.autocast("cpu", torch.bfloat16):
            features = student.features(normalise(to_unit(list(cut.flatten(0, 1).numpy()))))
        encoded.append(features.half().unflatten(0, (-1, crops)))
    return torch.cat(encoded)


def load_student(encoder: Path) -> Student:
    """The encoder of stage 2 or of a checkpoint folder, for inference."""
    if encoder.is_dir():
        return encoder_of(encoder).eval()
    student = Student().eval()
    student.load_state_dict(torch.load(encoder, weights_only=True))
    return student


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path, help="encoder.pt of stage 2, or a checkpoint folder")
    parser.add_argument("rows", type=Path, help="the folder of stage 3")
    parser.add_argument("out", type=Path, help="file for the features")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    student = load_student(options.encoder)
    saved: dict[str, object] = {}
    for view, crops in zip(VIEWS, (FIRST_HIGH, ALL_CROPS), strict=True):
        files = sorted((options.rows / view).glob("*.jpg"))
        saved[view] = encode(student, files, crops)
        saved[f"{view}_images"] = [f"{view}/{file.name}" for file in files]
        print(view, len(files), flush=True)
    torch.save(saved, options.out)


if __name__ == "__main__":
    main()
