"""What can go wrong inside the network package, in words that a caller may show as they are.

They derive from ValueError, so that the package can be used without knowing them.
"""


class CheckpointError(ValueError):
    """A checkpoint folder is missing, incomplete, corrupt or of an unknown kind."""


class ControlTokenError(ValueError):
    """A text has one of the tokenizer's own tokens in it: it would end the user's turn, or stand for an image."""


class NoNumbersError(ValueError):
    """The network computed infinity or what is no number at all, from which neither text nor probabilities follow."""


class PromptTooLongError(ValueError):
    """A prompt has more tokens than the network was trained to read; nothing is ever cut silently."""
