"""Help must stay instant: the command line imports nothing heavy until a command needs it."""

import subprocess
import sys
from pathlib import Path

import pytest
from make_files import write_png

HEAVY = {
    "torch",
    "transformers",
    "numpy",
    "PIL",
    "pydicom",
    "openslide",
    "rich",
    "bitsandbytes",
    "huggingface_hub",
    "dragonfly_med",
}

PROBE = """
import sys
import dragonfly_cli.main
{more}
print(*sorted({{name.partition(".")[0] for name in sys.modules}}))
"""


def loaded_after(more: str) -> set[str]:
    done = subprocess.run(
        [sys.executable, "-c", PROBE.format(more=more)], capture_output=True, text=True, check=True, timeout=120
    )
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize(
    "arguments",
    [
        None,
        ["--help"],
        ["ask", "--help"],
        ["batch", "--help"],
        ["model", "--help"],
        ["model", "list"],
        ["template", "list"],
        ["finetune", "--help"],
        ["--version"],
    ],
)
def test_nothing_heavy_is_imported(arguments: list[str] | None) -> None:
    run = f"""
try:
    dragonfly_cli.main.app({arguments!r})
except SystemExit:
    pass
"""
    assert not loaded_after(run if arguments else "") & HEAVY


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["model", "--help"]])
def test_the_list_of_commands_makes_no_options(arguments: list[str]) -> None:
    program = f"""
import sys
from dragonfly_cli.main import app
try:
    app({arguments!r})
except SystemExit:
    print(*(name for name in sys.modules if name.endswith(".options")))
"""
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=120)
    assert done.stdout.splitlines()[-1] == ""


def test_a_bad_path_is_told_without_importing_torch() -> None:
    run = """
try:
    dragonfly_cli.main.app(["ask", "nowhere.svs", "Is it?"])
except SystemExit:
    pass
"""
    assert not loaded_after(run) & {"torch", "transformers"}


def test_a_picture_is_drawn_as_the_model_sees_it_without_importing_torch(tmp_path: Path) -> None:
    image, drawn = write_png(tmp_path / "a.png"), tmp_path / "drawn.png"
    run = f"""
try:
    dragonfly_cli.main.app(["view", "{image}", "-o", "{drawn}"])
except SystemExit:
    pass
"""
    assert not loaded_after(run) & {"torch", "transformers"}
    assert drawn.exists()


def test_contradictory_options_are_told_without_importing_torch() -> None:
    run = """
try:
    dragonfly_cli.main.app(["ask", "nowhere.svs", "Is it?", "--options", "a,b", "--scale", "1-5"])
except SystemExit:
    pass
"""
    assert not loaded_after(run) & {"torch", "transformers", "numpy"}
