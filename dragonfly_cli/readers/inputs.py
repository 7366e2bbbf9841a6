"""What a folder run goes through: pictures one by one, and the DICOM files of a folder as series.

Every image file below a source becomes part of exactly one input. Non-goals: opening them in order, answering.
"""

import os
from collections import defaultdict
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING

from dragonfly_cli.errors import InputError, NoInputError
from dragonfly_cli.options import OpenOptions
from dragonfly_cli.readers.dicom.signature import instance_uid, is_dicom
from dragonfly_cli.readers.head import as_written, exists, head_if_readable
from dragonfly_cli.readers.image_files import list_images
from dragonfly_cli.readers.opening import holds_series, open_source, series_named
from dragonfly_cli.readers.signature import ZIP_SUFFIX, is_dicom_slide
from dragonfly_cli.readers.source import Source

if TYPE_CHECKING:  # imports pydicom
    from dragonfly_cli.readers.dicom.series import Series
    from dragonfly_cli.readers.slide_dicom import SlidePart

_SlideParts = dict[Path, "SlidePart | None"]  # the files of a DICOM slide, None for one that cannot be read


@dataclass(frozen=True)
class Input:
    """One item of a run. ``name`` is its path, and behind it ``#N`` for the N-th series that ``info`` finds there.

    ``files`` are those found for it, none where it was named alone.
    """

    name: str
    open: Callable[[OpenOptions], Source]
    files: tuple[Path, ...] = ()

    @property
    def place(self) -> str:
        """Where it really lies, which is the same by whatever links it was found; one that was named is that name's."""
        if not self.files:
            folder, name = os.path.split(self.name)
            return str(Path(_real(folder), name))
        first = str(self.files[0])
        return os.path.realpath(first) + (self.name.removeprefix(first) if self.name.startswith(first) else "")


@cache
def _real(folder: str) -> str:
    return os.path.realpath(folder)


def list_inputs(source: Path) -> list[Input]:
    """The items of a file, a folder or an archive, in the order of their paths. Raises what ``list_images`` does."""
    images = list_images(source)
    if images == [source]:
        return _of_archive(source) if _may_hold_series(source) or _is_zip(source) else [_single(source)]
    slides = _slides_among(images)
    labels = {file for parts in slides if _are_labels(parts) for file in parts}
    images = [image for image in images if image not in labels]
    of_several = [*_series_among(images), *(_as_slide(tuple(parts)) for parts in slides if labels.isdisjoint(parts))]
    by_first_file: dict[Path, list[Input]] = defaultdict(list)
    for each in of_several:
        by_first_file[each.files[0]].append(each)
    taken = {file for each in of_several for file in each.files}
    inputs: list[Input] = []
    for image in images:
        if image in by_first_file:
            inputs += by_first_file[image]
        elif image not in taken:
            inputs += _of_archive(image) if _is_zip(image) else [_single(image)]
    return inputs


def _may_hold_series(path: Path) -> bool:
    try:
        return holds_series(path)
    except (InputError, NoInputError):
        return False  # told, with its reason, when it is opened


def named_input(path: Path) -> Input:
    """The input that a table calls by this name: a file, a folder of slices, or ``PATH#N``, a path's N-th series."""
    numbered = series_named(path)
    holder = numbered[0] if numbered else path
    if exists(holder) and (holder.is_dir() or numbered):
        return next((each for each in list_inputs(holder) if each.name == str(path)), lone_input(path))
    return lone_input(path)


def lone_input(path: Path) -> Input:
    """One that was named, and not found; it need not be there."""
    return Input(str(path) if exists(path) else as_written(path), partial(open_source, path))


def zipped_copies(inputs: Iterable[Input]) -> set[Path]:
    """The zips among the inputs all of whose DICOM files lie there unpacked too: same instance UIDs, same sizes."""
    files = {file for each in inputs for file in each.files}
    zips = set(filter(_is_zip, files))
    if not zips:
        return zips
    from dragonfly_cli.readers.dicom.collection import instances_in

    unpacked = {(uid, file.stat().st_size) for file in files - zips if (uid := instance_uid(head_if_readable(file)))}
    return {path for path in zips if (held := instances_in(path)) and held <= unpacked}


def _is_zip(file: Path) -> bool:
    return file.suffix.lower() == ZIP_SUFFIX


def _slides_among(images: list[Path]) -> list[_SlideParts]:
    """Each DICOM slide; a file that cannot be read is one by itself."""
    slides: dict[tuple[Path, str], _SlideParts] = defaultdict(dict)
    for image in images:
        if is_dicom_slide(head_if_readable(image)):
            from dragonfly_cli.readers.slide_dicom import part_of

            part = part_of(partial(image.open, "rb"))
            slides[image.parent, part.series if part else image.name][image] = part
    return list(slides.values())


def _are_labels(parts: _SlideParts) -> bool:
    """Whether all are labels or overviews, which may be a series of their own; what cannot be read is to be told."""
    return all(part and part.is_label for part in parts.values())


def _as_slide(files: tuple[Path, ...]) -> Input:
    """By its first file, which opens the others with it."""
    return Input(str(files[0]), partial(open_source, files[0]), files)


def _single(image: Path) -> Input:
    return Input(str(image), partial(open_source, image), (image,))


def _of_archive(path: Path) -> list[Input]:
    from dragonfly_cli.readers.dicom.volume import read_series

    try:
        numbers = [each.number for each in read_series(path)[0]]
    except InputError:
        return [_single(path)]  # told, with its reason, when it is opened
    if len(numbers) == 1:
        return [_single(path)]
    return [Input(f"{path}#{number}", partial(_open_numbered, path, number), (path,)) for number in numbers]


def _open_numbered(path: Path, number: int, options: OpenOptions) -> Source:
    return open_source(path, replace(options, series=str(number)))


def _open_stack(folder: Path, files: tuple[Path, ...], options: OpenOptions) -> Source:
    from dragonfly_cli.readers.dicom.places import on_disk
    from dragonfly_cli.readers.dicom.volume import VolumeSource

    return VolumeSource(folder, options, [on_disk(file) for file in files])


def _series_among(images: list[Path]) -> Iterator[Input]:
    """Each DICOM series of more than one file; those of different folders have nothing in common."""
    folders: dict[Path, list[Path]] = defaultdict(list)
    for image in filter(_is_slice, images):
        folders[image.parent].append(image)
    for folder, files in folders.items():
        yield from _series_in(folder, files)


def _series_in(folder: Path, files: list[Path]) -> Iterator[Input]:
    """What cannot be read is left for itself."""
    if len(files) < 2:
        return
    from dragonfly_cli.readers.dicom.index import slices_of
    from dragonfly_cli.readers.dicom.places import on_disk
    from dragonfly_cli.readers.dicom.series import group

    slices = []
    for file in files:
        try:
            slices += slices_of(on_disk(file))
        except InputError:
            continue
    several = [(series.number, stack) for series in group(slices) if len(stack := _files_of(series)) > 1]
    taken: set[Path] = set()
    for number, stack in several:
        left = tuple(file for file in stack if file not in taken)  # one file's frames may lie in two stacks
        taken.update(left)
        if len(left) > 1:
            name = str(folder) if len(several) == 1 else f"{folder}#{number}"
            yield Input(name, partial(_open_stack, folder, left), left)


def _files_of(series: "Series") -> tuple[Path, ...]:
    """The files of its slices, and copies of them, which are no pictures of their own."""
    return tuple(sorted({each.place.path for each in (*series.slices, *series.copies) if each.place.path}))


def _is_slice(file: Path) -> bool:
    head = head_if_readable(file)
    return is_dicom(head) and not is_dicom_slide(head)
