"""The rooms of the package stand on floors: a room imports only from those below it."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from graphlib import TopologicalSorter
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
    "tokenizer",
    "model",
    "objectives",
    "evaluation",
    "checkpoint",
    "configuration",
    "training",
    "use",
    "workflows",
)
# What stands below a room and still must not be imported there, as its docstring says.
FORBIDDEN = {
    "hardware": {"data"},
    "evaluation": {"checkpoint"},
    "tasks": {"hardware"},
    "data": {"tasks"},
    "tokenizer": {"hardware", "tasks"},
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
    assert files == {"__init__.py", "client.py"}, "files belong into rooms, but for the service's client"
    assert len(folders) <= 13


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


def _imported_files(path: Path) -> Iterator[Path]:
    """The files of the package that a file imports anywhere, also inside functions or for types alone."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            names = [node.module, *(f"{node.module}.{alias.name}" for alias in node.names)]
        else:
            continue
        for name in names:
            file = PACKAGE.parent.joinpath(*name.split(".")).with_suffix(".py")
            if name.startswith("vlc.") and file.is_file():
                yield file


def test_no_files_import_each_other_in_a_circle():
    graph = {path: set(_imported_files(path)) for path in PACKAGE.rglob("*.py") if path.name != "__init__.py"}
    TopologicalSorter(graph).prepare()  # raises CycleError, which names the circle


def test_no_function_is_long():
    for path in PACKAGE.rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.FunctionDef) and node.name != "config":  # Sacred's: a key and its comment a line
                length = node.end_lineno - node.lineno + 1
                assert length <= 60, f"{path.relative_to(PACKAGE)}: {node.name} has {length} lines"
