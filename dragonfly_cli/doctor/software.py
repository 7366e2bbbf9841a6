"""Python, the libraries and the image decoders: are they installed, in versions that are known to work?"""

import sys
from collections.abc import Iterator
from importlib import import_module
from importlib.metadata import PackageNotFoundError, requires, version
from importlib.util import find_spec
from platform import machine, platform, python_version
from typing import TYPE_CHECKING

from dragonfly_cli import __version__
from dragonfly_cli.doctor.finding import DoctorSettings, Finding, ok, problem, warning

if TYPE_CHECKING:
    from packaging.specifiers import SpecifierSet

_OLDEST_PYTHON = (3, 11)
_INSTALL_AGAIN = "in the folder of its source, run: pip install ."  # an index may have a namesake

# Without these something else still answers.
_NOT_VITAL = {"bitsandbytes", "pylibjpeg", "pylibjpeg-openjpeg", "pylibjpeg-rle", "pyjpegls", "imagecodecs"}

# Modules of libraries that read images, those with compiled code where there are such.
_IMAGING = {
    "pillow": "PIL.Image",
    "tifffile": "tifffile",
    "imagecodecs": "imagecodecs._jpeg8",
    "wsidicom": "wsidicom",
    "scipy": "scipy.ndimage",
    "shapely": "shapely",
}


def python(settings: DoctorSettings) -> Iterator[Finding]:
    detail = f"{python_version()} on {platform(terse=True)}, {machine()}; dragonfly {__version__}"
    if sys.version_info < _OLDEST_PYTHON:
        yield problem("python", detail, f"install Python {'.'.join(map(str, _OLDEST_PYTHON))} or newer")
    else:
        yield ok("python", detail)


def libraries(settings: DoctorSettings) -> Iterator[Finding]:
    """Every requirement of the package itself, compared with what is installed."""
    from packaging.requirements import Requirement

    try:
        texts = requires("dragonfly-cli") or []
    except PackageNotFoundError:
        yield warning("dragonfly-cli", "runs without being installed, so its libraries are not checked", _INSTALL_AGAIN)
        return
    for text in texts:
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _library(requirement.name, requirement.specifier)


def _library(name: str, wanted: "SpecifierSet") -> Finding:
    report = warning if name in _NOT_VITAL else problem
    try:
        installed = version(name)
    except PackageNotFoundError:
        return report(name, "is not installed", f'run: pip install "{name}{wanted}"')
    if installed not in wanted:
        return warning(name, f"{installed}; {wanted} is wanted", f'run: pip install "{name}{wanted}"')
    return ok(name, installed)


def decoders(settings: DoctorSettings) -> Iterator[Finding]:
    """One line for every compressed transfer syntax of DICOM that is read here."""
    if find_spec("pydicom") is None:
        return  # told with the libraries
    from pydicom.pixels import get_decoder
    from pydicom.uid import UID

    from dragonfly_cli.readers.dicom.codecs import DEEPEST_BITS, INSTALL_HINTS, can_decode

    for syntax in map(UID, INSTALL_HINTS):
        name = f"decoder {syntax.name}"
        if not can_decode(syntax, DEEPEST_BITS.get(syntax, 8)):
            yield warning(name, "none: such DICOM files cannot be read", INSTALL_HINTS[syntax])
        else:
            yield ok(name, ", ".join(get_decoder(syntax).available_plugins))


def imaging(settings: DoctorSettings) -> Iterator[Finding]:
    """The libraries behind the readers are loaded: an installed one may lack a shared library of the system."""
    broken = {}
    for name, module in _IMAGING.items():
        try:
            import_module(module)
        except Exception as error:  # of a broken library anything may come
            broken[name] = error
            yield problem("imaging", f"{name} cannot be loaded: {error}", f"run: pip install --force-reinstall {name}")
    if not broken:
        yield ok("imaging", f"{', '.join(_IMAGING)} can be loaded")


def openslide(settings: DoctorSettings) -> Iterator[Finding]:
    try:
        import openslide as library
    except (ImportError, OSError) as error:  # OSError: the shared library behind it cannot be loaded
        yield problem(
            "openslide", f"whole slides cannot be read: {error}", "run: pip install openslide-python openslide-bin"
        )
        return
    yield ok("openslide", f"library {library.__library_version__}, Python package {library.__version__}")
