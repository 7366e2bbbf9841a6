"""Whether a JPEG stream was damaged in its middle, where decoders go on without a word and show grey or other colours.

Told is what cannot stand in coded data: a marker that ends it early, a second end or none, and a run of zeros, as where
a disk has lost a block. A few changed bytes are not: libjpeg itself warns of a third of these, at half the cost of
decoding.
Source: ITU-T T.81 (markers, B.1.1; the code of all zeros is that of the first symbol of a Huffman table, C.2).
"""

from collections.abc import Iterator

import numpy as np

_MARK, _END, _RESTARTS = 0xFF, 0xD9, range(0xD0, 0xD8)
_START_OF_SCAN, _HUFFMAN_TABLES, _RESTART_INTERVAL = 0xDA, 0xC4, 0xDD
_FRAMES = (0xC0, 0xC1)  # baseline and extended; others have several scans, and markers between these
_ANY_FRAME = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_LOST = bytes(32)
_END_OF_BLOCK = 0
_WAVES = 1  # class of a Huffman table


def is_damaged(stream: bytes, tables: bytes = b"") -> bool:
    """Whether the coded data of a baseline stream cannot be whole; ``tables`` are those of its TIFF page."""
    segments = dict(_segments(stream))
    scan, frame = segments.get(_START_OF_SCAN), next((segments[each] for each in _FRAMES if each in segments), None)
    if scan is None or frame is None or stream[scan] != stream[frame + 5]:  # of several scans each has some components
        return scan is not None and bytes([_MARK, _END]) not in stream
    start = _end_of(stream, scan)
    data = np.frombuffer(stream, np.uint8, offset=start)
    followers = data[1:][data[:-1] == _MARK]
    markers = followers[followers != 0].tolist()
    allowed = {_MARK, _END}
    if _RESTART_INTERVAL in segments | dict(_segments(tables)):
        allowed.update(_RESTARTS)
    if markers.count(_END) != 1 or not allowed.issuperset(markers):
        return True
    lost = stream.find(_LOST, start, stream.rfind(bytes([_MARK, _END]))) >= 0
    return lost and any(symbol != _END_OF_BLOCK for each in (stream, tables) for symbol in _symbols_of_zeros(each))


def stated_size(stream: bytes) -> tuple[int, int] | None:
    """(width, height) that a stream says of itself, None where it does not; 0 is a height that follows the pixels."""
    at = next((at for marker, at in _segments(stream) if marker in _ANY_FRAME), None)
    if at is None:
        return None
    return int.from_bytes(stream[at + 3 : at + 5], "big"), int.from_bytes(stream[at + 1 : at + 3], "big")


def _segments(stream: bytes) -> Iterator[tuple[int, int]]:
    """The markers before the coded data, and where what belongs to each begins."""
    at = 2
    while at + 4 <= len(stream) and stream[at] == _MARK:
        yield stream[at + 1], at + 4
        if stream[at + 1] == _START_OF_SCAN:
            return
        at = _end_of(stream, at + 4)


def _end_of(stream: bytes, segment: int) -> int:
    return segment - 2 + int.from_bytes(stream[segment - 2 : segment], "big")


def _symbols_of_zeros(stream: bytes) -> Iterator[int]:
    """What all zeros mean by each table of the waves of a block.

    By one where that is another wave they never end, so that a plain background is no long run of them.
    """
    for marker, at in _segments(stream):
        end = _end_of(stream, at)
        while marker == _HUFFMAN_TABLES and at + 17 < end:
            if stream[at] >> 4 == _WAVES:
                yield stream[at + 17]
            at += 17 + sum(stream[at + 1 : at + 17])
