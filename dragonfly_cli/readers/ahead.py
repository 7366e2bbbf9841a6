"""A source whose next boxes are read while the model is busy with the one before.

Reading is OpenSlide's, libjpeg's and Pillow's work, during which other threads run. Only for sources that may be read
from several threads.
"""

from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from PIL import Image

from dragonfly_cli.geometry import Box
from dragonfly_cli.readers.source import Source, View

Size = tuple[int, int]
_AHEAD = 1  # boxes; a field's canvases take 2 MB, so more would cost memory, and the model is slower than reading


class SourceAhead:
    """``source``, of which ``boxes`` will be viewed in this order at the ``sizes_of`` them; close it after use.

    Everything else is the source's own.
    """

    def __init__(self, source: Source, boxes: Sequence[Box], sizes_of: Callable[[Size], Sequence[Size]]) -> None:
        self._source = source
        self._boxes = list(boxes)
        self._sizes_of = sizes_of
        self._pool = ThreadPoolExecutor(_AHEAD)
        self._coming: dict[Box, Future[dict[Size, Image.Image]]] = {}

    def __getattr__(self, name: str) -> Any:
        return getattr(self._source, name)

    def view(self, box: Box, frame: int = 0) -> View:
        coming = self._coming.pop(box, None)
        if box in self._boxes:
            after = self._boxes.index(box) + 1
            for following in self._boxes[after : after + _AHEAD]:
                self._coming.setdefault(following, self._pool.submit(self._read, following, frame))
        view = self._source.view(box, frame)
        return view if coming is None else _ViewAhead(view, coming)

    def close(self) -> None:
        """Stops reading ahead; the source stays open."""
        self._pool.shutdown(cancel_futures=True)

    def _read(self, box: Box, frame: int) -> dict[Size, Image.Image]:
        view = self._source.view(box, frame)
        return {size: view.resize(size) for size in self._sizes_of(box.size_wh)}


class _ViewAhead:
    """A view of which some sizes have been, or are being, read already."""

    def __init__(self, view: View, coming: "Future[dict[Size, Image.Image]]") -> None:
        self._view = view
        self._coming = coming

    @property
    def size(self) -> Size:
        return self._view.size

    def resize(self, size: Size) -> Image.Image:
        """Raises what reading ahead raised."""
        return self._coming.result().get(size) or self._view.resize(size)
