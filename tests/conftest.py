"""Fixtures: generated arrow files, and a two-layer model under a name of its own."""

import os
import socket
from collections.abc import Iterator
from pathlib import Path

# Small models are as fast on one thread, and two threads that share a busy core with others are very slow.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import pytest

import vlc  # first: it lets torchvision import beside a CPU-only torch
from tests import tiny
from tests.labelled_folders import write_folder
from tests.offline import no_network
from vlc.model.sizes import ENCODERS

collect_ignore = ["reliability"]  # slow: run where it is named

GOLDEN = Path(__file__).parent / "golden"

assert vlc.__version__

# No test, and no process that a test starts, reaches another machine.
no_network.install()
_OFFLINE = str(Path(no_network.__file__).parent)
os.environ["PYTHONPATH"] = os.pathsep.join(filter(None, [_OFFLINE, os.environ.get("PYTHONPATH")]))


@pytest.fixture(scope="session")
def asked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The file of the machines that this process, and processes that it starts, wanted to reach."""
    path = tmp_path_factory.mktemp("network") / "asked.txt"
    path.write_text("")
    os.environ[no_network.LOG] = str(path)
    return path


@pytest.fixture(autouse=True)
def no_other_machine_is_asked(asked: Path) -> Iterator[None]:
    """Fail the test that wants to reach another machine, also where its code swallows the error."""
    yield
    if tried := asked.read_text():
        asked.write_text("")
        pytest.fail(f"it tried to reach other machines: {tried}")


@pytest.fixture(scope="session")
def golden() -> Path:
    """Inputs and outputs of the published implementation; golden/README.md explains them."""
    return GOLDEN


@pytest.fixture(scope="session")
def arrows(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Arrow files of every data set in the catalogue, a few rows each. Read only."""
    return tiny.write_catalog(tmp_path_factory.mktemp("arrows"))


@pytest.fixture(scope="session")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of images in three classes, 16 for training and 5 for validation of each. Read only."""
    return write_folder(tmp_path_factory.mktemp("images"), {"train": 16, "val": 5})


@pytest.fixture
def small_vit(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a two-layer encoder that exists during a test."""
    monkeypatch.setitem(ENCODERS, "small_vit", tiny.SMALL)
    return "small_vit"


@pytest.fixture
def free_port() -> int:
    """A port that nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.fixture
def small_vilt(monkeypatch: pytest.MonkeyPatch) -> str:
    """The name of a two-layer encoder with learned positions that exists during a test."""
    monkeypatch.setitem(ENCODERS, "small_vilt", tiny.SMALL_VILT)
    return "small_vilt"
