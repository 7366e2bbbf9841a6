"""The demonstration model's tokenizer: byte-level BPE in the manner of Llama 3, learnt from the training text.

Splitting pattern, ``ignore_merges`` and the leading ``<|begin_of_text|>`` are Llama 3's; the last sixteen ids are its
special tokens in its order.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers

VOCABULARY = 1200
SPECIAL = (
    "<|begin_of_text|>",
    "<|end_of_text|>",
    "<|reserved_special_token_0|>",  # placeholder of an image embedding
    "<|reserved_special_token_1|>",  # end of a crop
    "<|reserved_special_token_2|>",
    "<|reserved_special_token_3|>",
    "<|start_header_id|>",
    "<|end_header_id|>",
    "<|reserved_special_token_4|>",
    "<|eot_id|>",
    *(f"<|reserved_special_token_{number}|>" for number in range(5, 11)),
)
FIRST_SPECIAL = VOCABULARY - len(SPECIAL)
BOS_ID, EOS_ID, _, NEWLINE_ID = range(FIRST_SPECIAL, FIRST_SPECIAL + 4)
EOT_ID = FIRST_SPECIAL + SPECIAL.index("<|eot_id|>")
PATTERN = (
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+"
)
SINGLE = ("Yes", "No", "yes", "no", " Yes", " No", " yes", " no", "user", "assistant", "system", "\n\n", "\n")
ANSWERS_TAKEN = 10  # one in so many: answers come from a short list
SEEN_OFTEN = 20000  # repetitions that make each of SINGLE one token


def training_text(rows: Path) -> Iterator[str]:
    """The questions and answers of stage 2, and the words that must be one token."""
    with rows.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines):
            row = json.loads(line)
            yield row["question"]
            if number % ANSWERS_TAKEN == 0 or row["dataset"] == "vqa_rad":
                yield row["answer"]
    for word in SINGLE:
        yield from [word] * SEEN_OFTEN


def make_tokenizer(text: Iterator[str]) -> Tokenizer:
    """A tokenizer with exactly ``VOCABULARY`` ids."""
    tokenizer = Tokenizer(models.BPE(ignore_merges=True))
    split = pre_tokenizers.Split(Regex(PATTERN), "isolated")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [split, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=FIRST_SPECIAL,
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    tokenizer.train_from_iterator(text, trainer)
    tokenizer.add_special_tokens([AddedToken(name, special=True, normalized=False) for name in SPECIAL])
    bos = SPECIAL[0]
    tokenizer.post_processor = processors.Sequence(
        [
            processors.ByteLevel(trim_offsets=False),
            processors.TemplateProcessing(
                single=f"{bos} $A", pair=f"{bos} $A {bos}:1 $B:1", special_tokens=[(bos, BOS_ID)]
            ),
        ]
    )
    return tokenizer


def check(tokenizer: Tokenizer) -> None:
    """Raise ValueError if an id or a word is not where the model will look for it."""
    if tokenizer.get_vocab_size() != VOCABULARY or tokenizer.token_to_id(SPECIAL[0]) != BOS_ID:
        raise ValueError(f"{tokenizer.get_vocab_size()} ids instead of {VOCABULARY}")
    split = [word for word in SINGLE if len(tokenizer.encode(word, add_special_tokens=False).ids) != 1]
    if split:
        raise ValueError(f"more than one token each: {split}")


def save(tokenizer: Tokenizer, folder: Path) -> None:
    """Write tokenizer.json, tokenizer_config.json and special_tokens_map.json."""
    flags = {"lstrip": False, "normalized": False, "rstrip": False, "single_word": False, "special": True}
    names = {"bos_token": SPECIAL[0], "eos_token": SPECIAL[1], "pad_token": SPECIAL[1]}
    config = {
        "added_tokens_decoder": {str(FIRST_SPECIAL + i): {"content": name, **flags} for i, name in enumerate(SPECIAL)},
        **names,
        "clean_up_tokenization_spaces": False,  # it would eat spaces of a byte-level BPE
        "model_input_names": ["input_ids", "attention_mask"],
        "model_max_length": 4096,
        "processor_class": "DragonflyProcessor",
        "tokenizer_class": "PreTrainedTokenizerFast",
    }
    tokenizer.save(str(folder / "tokenizer.json"), pretty=False)
    (folder / "tokenizer_config.json").write_text(json.dumps(config, indent=1) + "\n")
    (folder / "special_tokens_map.json").write_text(json.dumps(names, indent=1) + "\n")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("rows", type=Path, help="rows.jsonl of stage 2")
    parser.add_argument("out", type=Path, help="folder for the three files")
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    tokenizer = make_tokenizer(training_text(options.rows))
    check(tokenizer)
    save(tokenizer, options.out)


if __name__ == "__main__":
    main()
