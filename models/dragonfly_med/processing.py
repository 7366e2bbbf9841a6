"""Images and prompts to the tensors that the network reads, and token ids back to text.

A sample is ``[image block] + [BOS + prompt]``: all image placeholders first, a newline token after every crop, and only
then the beginning-of-text token. Prompts longer than the network was trained to read are refused, never cut.

The processor does what the published weights were trained with and nothing else: an image is converted to RGB as
Pillow does it. Orientation, transparency, windows and fields of view are decided by whoever hands the image over.
"""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

import torch
from PIL import Image
from transformers import BatchFeature, PreTrainedTokenizerFast, ProcessorMixin

from dragonfly_med.configuration import DragonflyConfig
from dragonfly_med.crops import Resizable, cut_crops, draw_canvases, normalize
from dragonfly_med.errors import CheckpointError, ControlTokenError, PromptTooLongError
from dragonfly_med.loading import existing_folder, first_line, naming
from dragonfly_med.views import POOLED_GRID, Architecture, ViewPlan, high_canvas_wh, plan_views

# Text may fill half of the length the networks were trained with (2048 ids in v1, 4096 in v2), less one id.
TRAINED_LENGTH: dict[Architecture, int] = {"dragonfly-v1": 2048, "dragonfly-v2": 4096}

_V1_FULL_CROPS = 17  # 1 low, 4 middle and the 12 selected high crops
_V2_POOLED_CROPS = 40  # 4 middle and 36 high crops
_V2_POOLED_TOKENS = 1 + POOLED_GRID**2

_SETTINGS_FILE = "processor_config.json"

Picture = Image.Image | Resizable


class DragonflyProcessor(ProcessorMixin):
    """Turns images and prompts into model inputs.

    Args:
        tokenizer: Llama 3's, or one with the same special tokens.
        architecture: which crops are cut and how many placeholders stand for them.
        crop_side_px: the side of a crop, as the vision encoder takes it.
        patch_grid: patches along one side of a crop.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerFast,
        architecture: Architecture = "dragonfly-v1",
        crop_side_px: int = 224,
        patch_grid: int = 7,
        **kwargs: Any,
    ) -> None:
        super().__init__(tokenizer, **kwargs)
        # Published answers have no space before punctuation: their tokenizer's settings say so, and transformers no
        # longer obeys them unless this is set.
        tokenizer.clean_up_tokenization_spaces_for_bpe_even_though_it_will_corrupt_output = True
        self.architecture: Architecture = architecture
        self.crop_side_px = crop_side_px
        self.patch_grid = patch_grid
        self.begin_of_text_id = self._token_id("<|begin_of_text|>")
        self.end_of_text_id = self._token_id("<|end_of_text|>")
        self.image_token_id = self._token_id("<|reserved_special_token_0|>")
        self.image_newline_token_id = self._token_id("<|reserved_special_token_1|>")

    @classmethod
    def from_pretrained(cls, pretrained_model_name_or_path: Any, **kwargs: Any) -> "DragonflyProcessor":
        """Opens a checkpoint folder; never a network.

        Raises:
            CheckpointError: the folder has no tokenizer, or one that does not fit its network.
        """
        folder = existing_folder(pretrained_model_name_or_path)
        if not (folder / "tokenizer.json").is_file():
            raise CheckpointError(f"{folder}: there is no tokenizer.json")
        with naming(folder, "the configuration or the tokenizer cannot be read"):
            return cls._opened(folder)

    @classmethod
    def _opened(cls, folder: Path) -> "DragonflyProcessor":
        tokenizer = _tokenizer(folder)
        if not (folder / "config.json").is_file():
            settings = json.loads((folder / _SETTINGS_FILE).read_text(encoding="utf-8"))
            return cls(tokenizer, settings["architecture"], settings["crop_side_px"], settings["patch_grid"])
        config = DragonflyConfig.from_pretrained(folder, local_files_only=True)
        processor = cls(tokenizer, config.architecture, config.crop_side_px, config.patch_grid)
        processor._refuse_another_network(config)
        return processor

    def save_pretrained(self, save_directory: Any, **kwargs: Any) -> list[str]:
        """Writes the tokenizer and ``processor_config.json``; returns the names of the files."""
        folder = Path(save_directory)
        folder.mkdir(parents=True, exist_ok=True)
        written = list(self.tokenizer.save_pretrained(folder))
        settings = {
            "processor_class": type(self).__name__,
            "image_encoding_style": "llava-hd",  # the reference's name for the only style there is
            "architecture": self.architecture,
            "crop_side_px": self.crop_side_px,
            "patch_grid": self.patch_grid,
        }
        file = folder / _SETTINGS_FILE
        file.write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        return [*written, str(file)]

    def prompt(self, question: str, system: str | None = None, earlier: Sequence[tuple[str, str]] = ()) -> str:
        """The question in Llama 3's chat form, after the (question, answer) turns of a conversation.

        A system prompt goes before the first question, inside the user's turn, as the weights were trained. Raises
        ControlTokenError for a text that could leave its turn.
        """
        for text in (system or "", question, *(said for turn in earlier for said in turn)):
            self._refuse_control_tokens(text)
        questions = [*(asked for asked, _ in earlier), question]
        if system:
            questions[0] = f"{system} {questions[0]}"
        answers = [*(answer + "<|eot_id|>" for _, answer in earlier), ""]
        return "".join(
            f"<|start_header_id|>user<|end_header_id|>\n\n{asked}<|eot_id|>"
            f"<|start_header_id|>assistant<|end_header_id|>\n\n{answer}"
            for asked, answer in zip(questions, answers, strict=True)
        )

    @property
    def canvas_wh(self) -> tuple[int, int]:
        """(width, height) in pixels of the high view of a landscape picture."""
        return high_canvas_wh(self.crop_side_px, self.architecture)

    def plan(self, size_wh: tuple[int, int]) -> ViewPlan:
        """Which crops an image of ``size_wh`` pixels is cut into."""
        return plan_views(size_wh, self.crop_side_px, self.architecture)

    def __call__(
        self,
        images: Picture | Sequence[Picture] | None = None,
        text: str | Sequence[str] | None = None,
        return_tensors: str = "pt",
        is_generate: bool = True,
        max_length: int | None = None,
        padding: bool | str = True,
        padding_side: Literal["left", "right"] | None = None,
        **kwargs: Any,
    ) -> BatchFeature:
        """Model inputs for pairs of one image and one prompt.

        Text alone is treated as with an image. The reference ends it with <|end_of_text|> even where it is to be
        answered, and does not hold to ``max_length``; no network was trained to answer behind that token.

        Args:
            images: one per prompt (one image alone needs no list); ``None`` for text alone.
            text: chat-wrapped prompts (see ``prompt``).
            return_tensors: only ``"pt"``.
            is_generate: ``True`` pads on the left, ready for generation; ``False`` ends every sample with
                <|end_of_text|> and pads on the right, ready for training.
            max_length: the length the network was trained with; text may take half of it, less one id.
            padding: has no effect: rows of a batch are always padded to the longest.
            padding_side: ``None`` is the side that ``is_generate`` implies.

        Returns:
            ``input_ids`` and ``attention_mask`` [batch, length], and with images ``pixel_values``
            [batch, crops, 3, side, side] float32.

        Raises:
            PromptTooLongError: a prompt does not fit.
            ValueError: images and prompts are not pairs, or an argument is unknown.
        """
        if kwargs or return_tensors != "pt":
            raise ValueError(f"unknown arguments: {sorted(kwargs) or return_tensors}")
        pictures, prompts = _as_pairs(images, text)
        block = [] if pictures is None else self.image_block()
        end = [] if is_generate else [self.end_of_text_id]
        rows = [block + self.text_ids(prompt, max_length) + end for prompt in prompts]
        data = self._pad(rows, padding_side or ("left" if is_generate else "right"))
        if pictures is not None:
            data["pixel_values"] = torch.stack([self.pixels(picture) for picture in pictures])
        return BatchFeature(data)

    def pixels(self, image: Picture) -> torch.Tensor:
        """The normalised crops of one image: float32 [crops, 3, side, side]."""
        plan = self.plan(image.size)
        return torch.from_numpy(normalize(cut_crops(draw_canvases(image, plan), plan)))

    def image_block(self) -> list[int]:
        """Placeholder and newline ids that stand for one image, whatever its size."""
        full = [self.image_token_id] * (1 + self.patch_grid**2) + [self.image_newline_token_id]
        if self.architecture == "dragonfly-v1":
            return full * _V1_FULL_CROPS
        pooled = [self.image_token_id] * _V2_POOLED_TOKENS + [self.image_newline_token_id]
        return full + pooled * _V2_POOLED_CROPS

    def text_ids(self, prompt: str, max_length: int | None = None) -> list[int]:
        """BOS and the prompt's ids; raises PromptTooLongError rather than cutting any of them."""
        # not every Llama 3 tokenizer puts BOS before a text by itself
        ids = [self.begin_of_text_id, *self.tokenizer(prompt, add_special_tokens=False)["input_ids"]]
        limit = (max_length or TRAINED_LENGTH[self.architecture]) // 2 - 1
        if len(ids) > limit:
            raise PromptTooLongError(f"the prompt has {len(ids)} tokens, and the network reads at most {limit}")
        return ids

    def batch_decode(self, token_ids: Any, **kwargs: Any) -> list[str]:
        return self.tokenizer.batch_decode(token_ids, **kwargs)

    def decode(self, token_ids: Any, **kwargs: Any) -> str:
        return self.tokenizer.decode(token_ids, **kwargs)

    def _pad(self, rows: list[list[int]], side: Literal["left", "right"]) -> dict[str, torch.Tensor]:
        """``input_ids`` and ``attention_mask`` [batch, longest]."""
        shape = len(rows), max(map(len, rows))
        input_ids = torch.full(shape, self.end_of_text_id)
        attention_mask = torch.zeros(shape, dtype=torch.long)
        for index, row in enumerate(rows):
            place = slice(shape[1] - len(row), None) if side == "left" else slice(len(row))
            input_ids[index, place] = torch.tensor(row)
            attention_mask[index, place] = 1
        return {"input_ids": input_ids, "attention_mask": attention_mask}

    def _refuse_control_tokens(self, text: str) -> None:
        for token in self.tokenizer.get_added_vocab():
            if token in text:
                raise ControlTokenError(f"{token} stands in it, which the network does not read as text")

    def _refuse_another_network(self, config: DragonflyConfig) -> None:
        """The network knows special tokens by number, the tokenizer by name."""
        for token, number in {
            "<|begin_of_text|>": config.bos_token_id,
            "<|end_of_text|>": config.eos_token_id,
            "<|reserved_special_token_0|>": config.image_token_id,
            "<|reserved_special_token_1|>": config.image_newline_token_id,
            "<|eot_id|>": config.stop_token_ids[-1],
        }.items():
            if self._token_id(token) != number:
                raise CheckpointError(f"the tokenizer has {token} at {self._token_id(token)}, the network at {number}")
        tokens, known = len(self.tokenizer), config.text_config.vocab_size
        if tokens > known:
            raise CheckpointError(f"the tokenizer has {tokens} tokens, and the network knows only {known}")

    def _token_id(self, token: str) -> int:
        token_id = self.tokenizer.get_vocab().get(token)
        if token_id is None:
            raise CheckpointError(f"the tokenizer has no {token}: it is not Llama 3's")
        return token_id


def _as_pairs(
    images: Picture | Sequence[Picture] | None, text: str | Sequence[str] | None
) -> tuple[Sequence[Picture] | None, list[str]]:
    """As many pictures as prompts, or none at all; one of either need not come in a list. Raises ValueError."""
    if text is None:
        raise ValueError("an image needs a prompt")
    prompts = [text] if isinstance(text, str) else list(text)
    pictures = images if images is None or isinstance(images, Sequence) else [images]
    if pictures is not None and len(pictures) != len(prompts):
        raise ValueError(f"{len(pictures)} images cannot be paired with {len(prompts)} prompts")
    return pictures, prompts


def _tokenizer(folder: Path) -> PreTrainedTokenizerFast:
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except Exception as error:
        # the Rust library behind it knows no other type than Exception
        raise CheckpointError(f"the tokenizer cannot be read: {first_line(error)}") from error
