"""Stage 3: the frozen encoder's features of all crops of the pictures that the questions are about, in one file."""

import argparse
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset

from demo_training.augment import normalise, to_unit
from demo_training.encoder import Student
from demo_training.make_rows import IMAGES
from demo_training.scores import views

ALL_CROPS = 29
AT_A_TIME = 6  # pictures


class Cut(Dataset[torch.Tensor]):
    """The crops of each picture: uint8 [crops, height, width, 3]."""

    def __init__(self, files: list[Path]) -> None:
        self.files = files

    def __len__(self) -> int:
        return len(self.files)

    def __getitem__(self, index: int) -> torch.Tensor:
        with Image.open(self.files[index]) as image:
            return torch.from_numpy(np.stack(views(image.convert("RGB"), ALL_CROPS)))


@torch.inference_mode()
def encode(student: Student, files: list[Path]) -> torch.Tensor:
    """float16 features [pictures, crops, tokens, width]."""
    encoded = []
    for cut in DataLoader(Cut(files), AT_A_TIME, num_workers=1):  # it cuts ahead of the encoder
        with torch.autocast("cpu", torch.bfloat16):
            features = student.features(normalise(to_unit(list(cut.flatten(0, 1).numpy()))))
        encoded.append(features.half().unflatten(0, (-1, ALL_CROPS)))
    return torch.cat(encoded)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("encoder", type=Path, help="encoder.pt of stage 1")
    parser.add_argument("rows", type=Path, help="the folder of stage 2")
    parser.add_argument("out", type=Path, help="file for the features")
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    student = Student().eval()
    student.load_state_dict(torch.load(options.encoder, weights_only=True))
    files = sorted((options.rows / IMAGES).glob("*.jpg"))
    images = [f"{IMAGES}/{file.name}" for file in files]
    torch.save({"images": images, "features": encode(student, files)}, options.out)


if __name__ == "__main__":
    main()
