"""The teacher: a small residual network whose last map has one feature for each patch of the encoder."""

import torch
from torch import nn

from demo_training.labels import OUTPUTS

WIDTHS, BLOCKS = (48, 96, 192), (1, 2, 4)
DROPOUT = 0.2


class Block(nn.Module):
    """Two 3 x 3 convolutions and a shortcut."""

    def __init__(self, inputs: int, outputs: int, stride: int) -> None:
        super().__init__()
        self.first = nn.Sequential(nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False), nn.BatchNorm2d(outputs))
        self.second = nn.Sequential(nn.Conv2d(outputs, outputs, 3, 1, 1, bias=False), nn.BatchNorm2d(outputs))
        self.shortcut: nn.Module = nn.Identity()
        if stride != 1 or inputs != outputs:
            self.shortcut = nn.Sequential(
                nn.AvgPool2d(stride), nn.Conv2d(inputs, outputs, 1, bias=False), nn.BatchNorm2d(outputs)
            )

    def forward(self, maps: torch.Tensor) -> torch.Tensor:
        return torch.relu(self.second(torch.relu(self.first(maps))) + self.shortcut(maps))


class Teacher(nn.Module):
    """Crops of 112 px -> 7 x 7 features, whose mean a linear layer reads."""

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = [nn.Conv2d(3, WIDTHS[0], 5, 2, 2, bias=False), nn.BatchNorm2d(WIDTHS[0]), nn.ReLU()]
        inputs = WIDTHS[0]
        for width, count in zip(WIDTHS, BLOCKS, strict=True):
            for number in range(count):
                layers.append(Block(inputs, width, 2 if number == 0 else 1))
                inputs = width
        self.body = nn.Sequential(*layers)
        self.dropout = nn.Dropout(DROPOUT)
        self.head = nn.Linear(inputs, OUTPUTS)
        for weight in self.body.parameters():  # the faster layout on a CPU
            if weight.ndim == 4:
                weight.data = weight.data.contiguous(memory_format=torch.channels_last)

    def features(self, crops: torch.Tensor) -> torch.Tensor:
        """[crops, 3, 112, 112] -> [crops, 49, width], row by row."""
        maps = self.body(crops.contiguous(memory_format=torch.channels_last))
        return maps.flatten(2).transpose(1, 2)

    def forward(self, crops: torch.Tensor) -> torch.Tensor:
        """Logits [crops, OUTPUTS]."""
        return self.head(self.dropout(self.features(crops).mean(1)))
