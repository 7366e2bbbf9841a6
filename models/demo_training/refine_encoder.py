"""Stage 2, from an earlier checkpoint: its vision encoder goes on learning the labels of single crops."""

from pathlib import Path

import torch
from safetensors.torch import load_file

from demo_training.encoder import Student
from demo_training.train_teacher import options_of, train

TOWER = "image_encoder.vision_model."


def encoder_of(checkpoint: Path) -> Student:
    """The encoder of a checkpoint folder, below linear layers that are yet to learn."""
    student = Student()
    weights = load_file(checkpoint / "model.safetensors")
    tower = {name.removeprefix(TOWER): value.float() for name, value in weights.items() if name.startswith(TOWER)}
    student.encoder.load_state_dict(tower)
    return student


def main() -> None:
    parser = options_of(__doc__)
    parser.add_argument("checkpoint", type=Path, help="folder of the earlier checkpoint")
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    torch.manual_seed(options.seed)
    train(encoder_of(options.checkpoint), options)


if __name__ == "__main__":
    main()
