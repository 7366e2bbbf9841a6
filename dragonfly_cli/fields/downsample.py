"""At what scale a slide is looked at: that of ``--level``, of ``--mpp``, or the default."""

from dataclasses import dataclass

from dragonfly_cli.errors import UsageError
from dragonfly_cli.options import LookOptions
from dragonfly_cli.readers.source import Source

TARGET_MPP = 0.5  # a 20x objective, at which most histology models were trained
_COARSE = 3.0  # times the target: less than a 10x objective shows, for which some slides are made


@dataclass(frozen=True)
class Downsample:
    """Level-0 pixels per pixel of the high view, along x and y."""

    x: float
    y: float

    def level_0_wh(self, view_wh: tuple[int, int]) -> tuple[int, int]:
        """How many level-0 pixels are shown in so many of a view."""
        return max(1, round(view_wh[0] * self.x)), max(1, round(view_wh[1] * self.y))


def target_downsample(source: Source, looking: LookOptions) -> Downsample:
    """Never finer than level 0; raises UsageError for a level or scale that the slide does not have."""
    if looking.level is not None:
        levels = source.details().get("levels", [])
        if looking.level >= len(levels):
            raise UsageError(
                f"--level {looking.level}: {source.path} has {len(levels)} level{'s' * (len(levels) != 1)}",
                "levels count from 0, the finest; dragonfly info lists them",
            )
        return _undistorted(source, levels[looking.level]["downsample"])
    if source.mpp is None:
        if looking.mpp is not None:
            raise UsageError(
                f"--mpp {looking.mpp:g}: {source.path} does not give its microns per pixel",
                "give it with --slide-mpp, or choose a --level",
            )
        return Downsample(1.0, 1.0)
    wanted = looking.mpp or TARGET_MPP
    if looking.mpp is not None and looking.mpp < max(source.mpp) * 0.99:
        source.warnings.append(f"--mpp {looking.mpp:g}: the slide has no finer level than {max(source.mpp):.3g}")
    elif looking.mpp is None and max(source.mpp) > _COARSE * TARGET_MPP:
        source.warnings.append(
            f"the slide has {max(source.mpp):.3g} microns per pixel at its finest: "
            f"too few for what is seen at {TARGET_MPP:g}, such as single cells"
        )
    return _undistorted(source, max(1.0, wanted / max(source.mpp)))


def _undistorted(source: Source, along_coarser: float) -> Downsample:
    """So many level-0 pixels along the coarser axis, and as many microns along the other, also of pixels not square."""
    coarsest = max(source.mpp) if source.mpp else 1.0
    return Downsample(*(along_coarser * coarsest / mpp for mpp in source.mpp or (1.0, 1.0)))
