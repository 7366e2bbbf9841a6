"""What can go wrong inside the network package, in words that a caller may show as they are.

They derive from ValueError, so that the package can be used without knowing them.
"""


class CheckpointError(ValueError):
    """A checkpoint folder is missing, incomplete, corrupt or of an unknown kind."""


class PromptTooLongError(ValueError):
    """A prompt has more tokens than the network was trained to read; nothing is ever cut silently."""
