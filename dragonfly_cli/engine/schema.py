"""Free answers that obey a JSON schema: at every token, what the schema forbids cannot be chosen.

llguidance does the work (https://github.com/guidance-ai/llguidance); what it cannot do of JSON Schema it refuses.
Nothing heavy is imported before an answer is made, so that a bad schema is told at once.
"""

import json
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_cli.errors import InputError, NoInputError, UsageError

if TYPE_CHECKING:
    import torch
    from llguidance import LLTokenizer
    from llguidance._lib import JsonCompileOptions

    from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor

# A small network would go on with spaces and line ends for ever.
_LAYOUT: "JsonCompileOptions" = {"whitespace_flexible": False}


def read_schema(file: Path) -> str:
    """The JSON text of a schema. Raises UsageError for one that is not understood, or that nothing obeys."""
    try:
        schema = json.loads(file.read_text(encoding="utf-8-sig"))
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except FileNotFoundError:
        raise NoInputError(f"no schema file {file}", "check the path given to --schema") from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"cannot read a schema from {file}", "it must be a JSON file in UTF-8") from None
    if why := _fault(text) if isinstance(schema, dict) else "a schema must be a JSON object":
        raise UsageError(f"--schema {file}: {why}", "give a JSON schema that some JSON text obeys")
    return text


class SchemaGrammar:
    """One answer under a schema; see ``dragonfly_med.generation.Grammar``.

    Raises UsageError for what only answering shows of a schema: that it goes on without end, or is too much to follow.
    """

    def __init__(self, tokenizer: "LLTokenizer", schema: str) -> None:
        from llguidance import LLMatcher

        self._matcher = LLMatcher(tokenizer, LLMatcher.grammar_from_json_schema(schema, defaults=_LAYOUT), log_level=0)

    def restrict(self, logits: "torch.Tensor") -> "torch.Tensor":
        import torch

        bias = self._matcher.compute_logit_bias()
        if self._matcher.is_error():
            why = self._matcher.get_error().partition("\n")[0]
            raise UsageError(f"--schema: no answer can be held to it ({why})", "give one that some JSON text obeys")
        allowed = torch.frombuffer(bytearray(bias), dtype=torch.uint8) > 0
        return logits.masked_fill(~allowed.to(logits.device), float("-inf"))

    def accept(self, token: int) -> None:
        self._matcher.consume_token(token)

    def is_whole(self, tokens: list[int]) -> bool:
        """Whether nothing can follow an answer of these tokens; asked of a grammar that has accepted none."""
        self._matcher.consume_tokens(tokens)
        return self._matcher.is_stopped()


def grammar_tokenizer(network: "DragonflyForCausalLM", processor: "DragonflyProcessor") -> "LLTokenizer":
    """llguidance's view of a vocabulary; takes about a second for Llama's."""
    from llguidance.hf import from_tokenizer

    end_of_turn = network.config.stop_token_ids[-1]
    return from_tokenizer(processor.tokenizer, network.config.text_config.vocab_size, end_of_turn)


def _fault(schema: str) -> str:
    from llguidance import LLMatcher

    return LLMatcher.validate_grammar(LLMatcher.grammar_from_json_schema(schema, defaults=_LAYOUT))
