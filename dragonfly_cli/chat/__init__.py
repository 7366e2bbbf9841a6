"""A conversation about one image: it is opened and encoded once, and every turn costs its own tokens."""

from dragonfly_cli.chat.loop import run_chat

__all__ = ["run_chat"]
