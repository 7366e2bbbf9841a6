"""Asks the network about a picture from Python, without the command line.

    python examples/ask_from_python.py PICTURE "What kind of image is this?" [CHECKPOINT]

Without a checkpoint folder the built-in demonstration model answers.
"""

import sys
from pathlib import Path

from PIL import Image

import dragonfly_med
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor


def answer(picture: Path, question: str, checkpoint: Path) -> str:
    processor = DragonflyProcessor.from_pretrained(checkpoint)
    model = DragonflyForCausalLM.from_pretrained(checkpoint, dtype="float32").eval()
    inputs = processor(text=[processor.prompt(question)], images=[Image.open(picture)], return_tensors="pt")
    tokens = model.generate(**inputs, max_new_tokens=64, do_sample=False)
    return processor.decode(tokens[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True).strip()


if __name__ == "__main__":
    if len(sys.argv) not in (3, 4):
        sys.exit(__doc__)
    folder = sys.argv[3] if len(sys.argv) > 3 else Path(dragonfly_med.__file__).parent / "demo"
    print(answer(Path(sys.argv[1]), sys.argv[2], Path(folder)))
