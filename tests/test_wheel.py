"""The wheel holds the two packages, the built-in model, and nothing that would shadow another project."""

import re
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def names(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("wheel")
    subprocess.run(
        [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", folder],
        cwd=ROOT,
        check=True,
        capture_output=True,
        timeout=300,
    )
    (wheel,) = folder.glob("*.whl")
    assert wheel.name.startswith("dragonfly_cli-")
    return zipfile.ZipFile(wheel).namelist()


def test_top_level_names(names: list[str]) -> None:
    tops = {name.split("/")[0] for name in names}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"dragonfly_cli", "dragonfly_med"}


def test_the_built_in_model_and_its_card_are_inside(names: list[str]) -> None:
    for file in ("config.json", "model.safetensors", "tokenizer.json", "CARD.md"):
        assert f"dragonfly_med/demo/{file}" in names


def test_the_console_script_is_declared(names: list[str]) -> None:
    assert any(name.endswith("entry_points.txt") for name in names)
    assert "dragonfly_cli/main.py" in names


def test_the_built_in_model_is_small() -> None:
    demo = ROOT / "models" / "dragonfly_med" / "demo"
    assert sum(file.stat().st_size for file in demo.rglob("*") if file.is_file()) < 20_000_000


def test_what_a_hint_says_to_install_is_there() -> None:
    """Extras of what is installed can be had by its name; in an index that name may be somebody else's."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    texts = [file.read_text("utf-8") for file in (ROOT / "README.md", *(ROOT / "dragonfly_cli").rglob("*.py"))]
    extras = re.findall(r"pip install \"([\w.-]+)\[(\w+)\]", "".join(texts))
    assert {name for name, _ in extras} == {project["name"], "."}
    assert {extra for _, extra in extras} <= project["optional-dependencies"].keys()
    assert not re.findall(rf"pip install (?:-U |--upgrade )?\"?{project['name']}(?!\[)", "".join(texts))
