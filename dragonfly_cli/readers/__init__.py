"""From a path to a source that can show any box of any frame at any size. Non-goal: which boxes to look at.

``opening`` chooses the reader of a file, and only then imports it; ``inputs`` finds what a folder run goes through.
"""

from dragonfly_cli.readers.head import exists
from dragonfly_cli.readers.opening import open_source
from dragonfly_cli.readers.source import Source, View

__all__ = ["Source", "View", "exists", "open_source"]
