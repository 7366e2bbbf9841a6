"""Free answers that obey a JSON schema: at every token, what the schema forbids cannot be chosen.

llguidance does the work (https://github.com/guidance-ai/llguidance); what it cannot do of JSON Schema it refuses.
Nothing heavy is imported before an answer is made, so that a bad schema is told at once.
"""

import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from dragonfly_cli.errors import InputError, NoInputError, UsageError
from dragonfly_cli.options import FormOptions
from dragonfly_cli.output.files import is_text

if TYPE_CHECKING:
    import torch
    from llguidance import LLTokenizer
    from llguidance._lib import JsonCompileOptions

    from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor

# A small network would go on with spaces and line ends for ever.
_LAYOUT: "JsonCompileOptions" = {"whitespace_flexible": False}


_ANOTHER = "give a JSON schema that some JSON text obeys"
_BOUNDS = ("type", "minimum", "maximum", "exclusiveMinimum", "exclusiveMaximum")
_LARGEST_EXACT = 2**53  # beyond it, llguidance rounds whole numbers to those that a double holds


def read_schema(wanted: FormOptions) -> str:
    """The JSON text of the schema. Raises UsageError for one that is not understood, or that nothing obeys."""
    file = wanted.schema
    try:
        schema = json.loads((wanted.schema_content or b"").decode("utf-8-sig"))
        text = json.dumps(schema, ensure_ascii=False, allow_nan=False)
    except FileNotFoundError:
        raise NoInputError(f"no schema file {file}", "check the path given to --schema") from None
    except (OSError, ValueError, RecursionError):
        raise InputError(f"cannot read a schema from {file}", "it must be a JSON file in UTF-8") from None
    if fault := schema_fault(schema):
        why, hint = fault
        raise UsageError(f"--schema {file}: {why}", hint)
    return text


def schema_fault(schema: Any) -> tuple[str, str] | None:
    """Why no answer can be held to a schema, or not as it says, and what to do."""
    from llguidance import LLMatcher

    if not isinstance(schema, dict):
        return "a schema must be a JSON object", _ANOTHER
    text = json.dumps(schema, ensure_ascii=False)
    if not is_text(text):
        return "it holds half of a character", "write the whole character, or both halves of its escape"
    try:
        grammar = LLMatcher.grammar_from_json_schema(text, defaults=_LAYOUT)
    except ValueError as error:  # nested too deep, a number out of range
        return str(error), "write it in a simpler form"
    if why := LLMatcher.validate_grammar(grammar):
        return why, _ANOTHER
    if not _begins(grammar):
        return "it says nothing but that it is itself", _ANOTHER
    return next(
        (fault for part in _parts(schema) if isinstance(part, dict) and (fault := _fault_of_numbers(part))), None
    )


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


def _begins(grammar: str) -> bool:
    """Whether an answer can have a first letter."""
    from llguidance import LLMatcher, LLTokenizer

    matcher = LLMatcher(LLTokenizer("byte"), grammar, log_level=0)
    matcher.compute_logit_bias()
    return not matcher.is_error()


def _parts(whole: Any) -> Iterator[Any]:
    """Every JSON value in another, itself among them."""
    yield whole
    for inner in whole.values() if isinstance(whole, dict) else whole if isinstance(whole, list) else ():
        yield from _parts(inner)


def _fault_of_numbers(part: dict[str, Any]) -> tuple[str, str] | None:
    """Numbers of which llguidance makes others, without a word."""
    for name in ("exclusiveMinimum", "exclusiveMaximum"):
        bound = part.get(name)
        if isinstance(bound, int | float) and _lets_through(part, bound):
            return (
                f"{name} {bound} would let {bound} itself through",
                f"use {name.removeprefix('exclusive').lower()} in its place, with a number that may be given",
            )
    allowed = part["enum"] if isinstance(part.get("enum"), list) else []
    for number in _parts([part.get("const"), *allowed]):
        if isinstance(number, int) and abs(number) > _LARGEST_EXACT:
            return f"{number} would be rounded", "give numbers up to 2^53, or texts"
    return None


def _lets_through(part: dict[str, Any], bound: float) -> bool:
    """Whether an exclusive bound would be given as an answer, as one beside some other bounds would."""
    from llguidance import LLMatcher, LLTokenizer

    bounds = {name: part[name] for name in _BOUNDS if name in part}
    grammar = LLMatcher.grammar_from_json_schema({"type": "number"} | bounds, defaults=_LAYOUT)
    tokenizer = LLTokenizer("byte")
    for text in (json.dumps(int(bound) if bound == int(bound) else bound), *(["-0"] if bound == 0 else [])):
        matcher = LLMatcher(tokenizer, grammar, log_level=0)
        matcher.consume_tokens(tokenizer.tokenize_str(text))
        if matcher.is_accepting():
            return True
    return False
