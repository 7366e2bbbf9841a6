"""Boxes on an image: integers, (x, y) before (width, height), origin at the top left, level-0 pixels.

This is the one convention outside tensors, the same as Pillow's. Nothing here touches a pixel.
"""

from dataclasses import dataclass


@dataclass(frozen=True)
class Box:
    """An axis-aligned rectangle in level-0 pixels; it may not be empty."""

    x: int
    y: int
    width: int
    height: int

    def __post_init__(self) -> None:
        if self.width <= 0 or self.height <= 0:
            raise ValueError(f"a box needs a positive size, not {self.width} x {self.height}")

    @property
    def size_wh(self) -> tuple[int, int]:
        return self.width, self.height

    @property
    def corners(self) -> tuple[int, int, int, int]:
        """(left, top, right, bottom), the right and bottom edges exclusive, as ``Image.crop`` takes them."""
        return self.x, self.y, self.x + self.width, self.y + self.height

    def corners_on(self, picture_wh: tuple[int, int], frame_wh: tuple[int, int]) -> tuple[int, int, int, int]:
        """``corners`` on a picture of the whole frame, whose width and height may be scaled differently."""
        left, top, right, bottom = self.corners
        across, down = (shown / length for shown, length in zip(picture_wh, frame_wh, strict=True))
        return round(left * across), round(top * down), round(right * across), round(bottom * down)

    def shifted(self, dx: int, dy: int) -> "Box":
        return Box(self.x + dx, self.y + dy, self.width, self.height)

    def meets(self, other: "Box") -> bool:
        """Whether the two have a pixel in common."""
        left, top, right, bottom = self.corners
        return other.x < right and left < other.x + other.width and other.y < bottom and top < other.y + other.height

    def within(self, other: "Box") -> "Box | None":
        """What the two have in common."""
        left, top = max(self.x, other.x), max(self.y, other.y)
        right, bottom = (min(ends) for ends in zip(self.corners[2:], other.corners[2:], strict=True))
        return Box(left, top, right - left, bottom - top) if right > left and bottom > top else None

    def as_dict(self) -> dict[str, int]:
        return {"x": self.x, "y": self.y, "width": self.width, "height": self.height}


@dataclass(frozen=True)
class ViewerPixels:
    """Pixels as another program counts them: from ``origin_xy`` of level 0, ``scale_xy`` of them to one of level 0."""

    origin_xy: tuple[int, int] = (0, 0)
    scale_xy: tuple[float, float] = (1.0, 1.0)

    @property
    def is_stretched(self) -> bool:
        return self.scale_xy != (1, 1)

    def of(self, x: int, y: int) -> tuple[float, float]:
        """A place of level 0."""
        (left, top), (across, down) = self.origin_xy, self.scale_xy
        return (round((x - left) * across, 2), round((y - top) * down, 2)) if self.is_stretched else (x - left, y - top)
