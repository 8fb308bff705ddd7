"""Refuses every connection to another machine, and writes down that it was tried: many callers swallow the error.

An audit hook of Python (PEP 578) sees all that goes through the module `socket`, whatever library asks. It does not see
libraries in C++ that connect by themselves: for them there is `make offline-test`, whose tests have no network at all.
"""

import ipaddress
import os
import socket
import sys
from contextlib import suppress

LOG = "VLC_TESTS_ASKED"  # environment variable with the path of the file of what was tried


def install() -> None:
    """Refuse from now on, in this process, for good."""
    names = {"localhost", "", socket.gethostname()}
    with suppress(OSError):  # this machine may not know its own name
        names.update(socket.gethostbyname_ex(socket.gethostname())[2])

    def hook(event: str, arguments: tuple) -> None:
        if event in ("socket.connect", "socket.sendto"):
            address = arguments[1]
            host = address[0] if isinstance(address, tuple) and isinstance(address[0], str) else None
        elif event in ("socket.getaddrinfo", "socket.gethostbyname"):
            host = arguments[0]
        else:
            return
        host = host.decode() if isinstance(host, bytes) else host
        if host is not None and host.endswith(".invalid"):  # no machine has such a name (RFC 2606)
            raise socket.gaierror(socket.EAI_NONAME, f"{host} is unknown")
        if host is not None and host not in names and not _is_local(host, named=event.startswith("socket.get")):
            _refuse(f"{event} {host}")

    sys.addaudithook(hook)


def _is_local(host: str, *, named: bool) -> bool:
    """Whether an address is of this machine; to look up the name of any address asks nobody."""
    try:
        address = ipaddress.ip_address(host.partition("%")[0])
    except ValueError:
        return False
    return named or address.is_loopback or address.is_unspecified


def _refuse(what: str) -> None:
    if path := os.environ.get(LOG):
        with open(path, "a", encoding="utf-8") as file:
            file.write(f"{what}\n")
    raise OSError(f"the tests have no network: {what}")
