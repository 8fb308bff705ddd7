"""The rooms of the package stand on floors: a room imports only from those below it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import vlc

PACKAGE = Path(vlc.__file__).parent

# From the ground up.
ROOMS = (
    "common",
    "hardware",
    "tasks",
    "data",
    "model",
    "objectives",
    "evaluation",
    "checkpoint",
    "configuration",
    "training",
    "use",
)
# What stands below a room and still must not be imported there, as its docstring says.
FORBIDDEN = {
    "hardware": {"data"},
    "evaluation": {"checkpoint"},
    "tasks": {"hardware"},
    "data": {"tasks"},
    "model": {"tasks"},
    "configuration": {"objectives", "evaluation", "checkpoint"},
}


def _imported_rooms(path: Path) -> Iterator[str]:
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [f"{node.module}.{alias.name}" for alias in node.names]
        else:
            continue
        names = [
            name for name in names if not name.startswith("vlc.objectives.options.")
        ]  # which the configuration reads
        yield from (name.split(".")[1] for name in names if name.startswith("vlc."))


def test_every_folder_is_a_room():
    folders = {path.name for path in PACKAGE.iterdir() if path.is_dir() and path.name != "__pycache__"}
    assert folders == set(ROOMS)
    files = {path.name for path in PACKAGE.iterdir() if path.is_file()}
    assert files == {"__init__.py"}, "files belong into rooms"
    assert len(folders) <= 12


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_imports_only_from_below(room):
    below = set(ROOMS[: ROOMS.index(room)]) - FORBIDDEN.get(room, set())
    for path in sorted(PACKAGE.joinpath(room).rglob("*.py")):
        above = set(_imported_rooms(path)) - below - {room}
        assert not above, f"{path.relative_to(PACKAGE)} imports from {', '.join(sorted(above))}"


@pytest.mark.parametrize("room", ROOMS)
def test_a_room_says_what_it_knows(room):
    assert len(ast.get_docstring(ast.parse(PACKAGE.joinpath(room, "__init__.py").read_text())) or "") > 60


def test_the_configuration_needs_no_torch():
    code = "import sys, vlc.configuration.settings, vlc.configuration.config; print('torch' in sys.modules)"
    found = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert found.stdout.strip() == "False"
