"""The tests reach no other machine, and notice who tries."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from tests.offline import no_network

TRY = "import socket; socket.create_connection(('192.0.2.1', 80), timeout=1)"  # an address that nobody has (RFC 5737)


@pytest.fixture
def tried():
    """The file of what was tried; what a test tries on purpose is no mistake of it."""
    path = Path(os.environ[no_network.LOG])
    yield path
    path.write_text("")


@pytest.mark.parametrize(
    ("call", "noted"),
    [
        (lambda: socket.create_connection(("192.0.2.1", 80), timeout=1), "socket.connect 192.0.2.1"),
        (lambda: socket.getaddrinfo("hub.example", 443), "socket.getaddrinfo hub.example"),
        (lambda: socket.gethostbyname("hub.example"), "socket.gethostbyname hub.example"),
        (lambda: socket.socket(type=socket.SOCK_DGRAM).sendto(b"", ("192.0.2.1", 53)), "socket.sendto 192.0.2.1"),
    ],
)
def test_another_machine_is_refused_and_noted(tried, call, noted):
    with pytest.raises(OSError, match="the tests have no network"):
        call()
    assert tried.read_text() == f"{noted}\n"


def test_processes_that_a_test_starts_are_refused_too(tried):
    ended = subprocess.run([sys.executable, "-c", TRY], capture_output=True, text=True)
    assert "the tests have no network" in ended.stderr
    assert tried.read_text() == "socket.connect 192.0.2.1\n"


def test_a_name_that_nobody_has_is_unknown_and_not_noted(asked):
    with pytest.raises(socket.gaierror):
        socket.create_connection(("hub.invalid", 80))
    assert not asked.read_text()


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost"])
def test_this_machine_is_reached(free_port, host):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", free_port))
        listener.listen()
        socket.create_connection((host, free_port), timeout=5).close()
