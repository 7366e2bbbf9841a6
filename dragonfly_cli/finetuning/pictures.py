"""The pictures that rows are about, read as every other command reads them; a frozen encoder sees each only once.

What the encoder makes of a picture is kept on disk, in half precision and with what its reader warned of, for all
epochs and for a run that is continued.
"""

from collections import Counter, defaultdict
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from hashlib import sha256
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch

from dragonfly_cli.datasets.rows import Picture, Row
from dragonfly_cli.errors import DragonflyError, InputError, LostError
from dragonfly_cli.fields import Field, field_view, plan_looks
from dragonfly_cli.fields.frames import check_frame
from dragonfly_cli.options import LookOptions, OpenOptions
from dragonfly_cli.readers import Source, open_source
from dragonfly_med import DragonflyForCausalLM, DragonflyProcessor
from dragonfly_med.training import Conversation, Exchange, Sample
from dragonfly_med.training.sequences import SequenceMaker


class PictureReader:
    """Reads pictures as the network sees them, pixels or, from ``cache``, features."""

    def __init__(self, processor: DragonflyProcessor, opening: OpenOptions, cache: Path | None) -> None:
        self._processor = processor
        self._canvas_wh = processor.canvas_wh
        self._opening = opening
        self._cache = cache
        self.warnings: Counter[str] = Counter()

    def pixels(self, picture: Picture) -> torch.Tensor:
        """float32 [crops, 3, side, side]; raises DragonflyError for a picture that cannot be read."""
        return self._read(picture)[0]

    def _read(self, picture: Picture) -> tuple[torch.Tensor, set[str]]:
        with closing(open_source(picture.path, self._opening)) as source:
            field = _field(source, picture, self._canvas_wh)
            return self._processor.pixels(field_view(source, field)), set(source.warnings)

    def sample(self, picture: Picture, conversations: Sequence[Conversation]) -> Sample:
        if self._cache is None:
            return Sample(conversations, pixels=self.pixels(picture))
        return Sample(conversations, features=torch.from_numpy(np.load(self._file(picture))["features"]))

    def prepare(self, picture: Picture, network: DragonflyForCausalLM) -> None:
        """Makes sure that ``sample`` can give the picture; raises DragonflyError where it cannot be read.

        What its reader warns of is counted in ``warnings``.
        """
        if self._cache is None:
            _, warnings = self._read(picture)
        elif (kept := _warnings_kept(self._file(picture))) is not None:
            warnings = kept
        else:
            pixels, warnings = self._read(picture)
            self._keep(picture, encoded(network, pixels), warnings)
        self.warnings.update(warnings)

    def _keep(self, picture: Picture, features: torch.Tensor, warnings: set[str]) -> None:
        file = self._file(picture)
        part = file.with_suffix(".part")
        with part.open("wb") as opened:
            np.savez(opened, features=features.numpy(), warnings=np.array(sorted(warnings), str))
        part.replace(file)

    def _file(self, picture: Picture) -> Path:
        assert self._cache is not None
        return self._cache / f"{sha256(repr(picture).encode()).hexdigest()}.npz"


class PictureSamples(Sequence[Sample]):
    """One sample per picture, or several where its conversations do not fit into one; read when asked for.

    Raises LostError for a picture that cannot be read any more.
    """

    def __init__(self, reader: PictureReader, maker: SequenceMaker, rows: list[Row]) -> None:
        self._reader = reader
        self._packs = [
            (picture, pack)
            for picture, theirs in by_picture(rows).items()
            for pack in maker.packed([conversation_of(row) for row in theirs])
        ]

    def __len__(self) -> int:
        return len(self._packs)

    def __getitem__(self, index):
        try:
            return self._reader.sample(*self._packs[index])
        except DragonflyError as error:
            raise LostError(error.message) from error


class Blanked(Sequence[Sample]):
    """The same samples with one picture, a blank one, in all of them: what the questions alone give away."""

    def __init__(self, samples: Sequence[Sample], picture: dict[str, torch.Tensor]) -> None:
        self._samples = samples
        self._picture = picture

    def __len__(self) -> int:
        return len(self._samples)

    def __getitem__(self, index):
        return Sample(self._samples[index].conversations, **self._picture)


def by_picture(rows: Iterable[Row]) -> dict[Picture, list[Row]]:
    """Rows of each picture, in the order in which they come."""
    found: dict[Picture, list[Row]] = defaultdict(list)
    for row in rows:
        found[row.picture].append(row)
    return found


def conversation_of(row: Row) -> list[Exchange]:
    return [Exchange(turn.question, turn.answer, turn.system) for turn in row.turns]


def unreadable_pictures(
    reader: PictureReader, pictures: Iterable[Picture], network: DragonflyForCausalLM
) -> Iterator[tuple[Picture, str]]:
    """Reads every picture; yields those that cannot be used, with the reason."""
    for picture in pictures:
        try:
            reader.prepare(picture, network)
        except DragonflyError as error:
            yield picture, error.message


def _warnings_kept(features: Path) -> set[str] | None:
    """Those beside the features; None where a power cut or a full disk has left a part of the file, or none."""
    try:
        return set(np.load(features)["warnings"].tolist())
    except (OSError, ValueError, EOFError, BadZipFile):
        return None


@torch.inference_mode()
def encoded(network: DragonflyForCausalLM, pixels: torch.Tensor) -> torch.Tensor:
    """What the encoder makes of one picture, float16 on the CPU."""
    device = next(network.image_encoder.parameters()).device
    return network.image_features(pixels[None].to(device))[0].half().cpu()


def _field(source: Source, picture: Picture, canvas_wh: tuple[int, int]) -> Field:
    if picture.frame is None and source.frames > 1:
        raise InputError(f"{source.path} has {source.frames} frames, and a column frame does not say which", "add it")
    if picture.region is None:
        plan = plan_looks(source, LookOptions(frame=picture.frame), canvas_wh)
        if plan.search:
            source.warnings.append("of a slide only the overview is learnt from, unless a column region names a part")
        return plan.fields[0]
    check_frame(source, picture.frame or 0)
    right, bottom = picture.region.corners[2:]
    if min(picture.region.x, picture.region.y) < 0 or right > source.size_wh[0] or bottom > source.size_wh[1]:
        raise InputError(f"{source.path}: the region reaches outside of the picture", "correct the column region")
    return Field(0, "region", picture.frame or 0, picture.region)
