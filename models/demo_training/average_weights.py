"""The last step: the mean of the weights that the language model had at the ends of its stages.

Each stage moves on from the one before, and what it learns last it learns at the cost of something else; their mean
loses less of either.
"""

import argparse
from pathlib import Path

import torch

from demo_training.train_language import save


def mean_weights(files: list[Path]) -> dict[str, torch.Tensor]:
    """Of weights that have the same names and shapes; what is not a number with fractions is taken from the last."""
    stages = [torch.load(file, weights_only=True) for file in files]
    return {
        name: torch.stack([stage[name] for stage in stages]).mean(0) if value.is_floating_point() else value
        for name, value in stages[-1].items()
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("weights", type=Path, nargs="+", help="files of stages 4 and 5")
    parser.add_argument("out", type=Path, help="file for the mean")
    options = parser.parse_args()
    save(mean_weights(options.weights), options.out)


if __name__ == "__main__":
    main()
