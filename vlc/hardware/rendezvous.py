"""How processes find each other: the addresses that they listen on, and a message while one waits for another."""

import atexit
import errno
import ipaddress
import os
import socket
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import TYPE_CHECKING

import torch.distributed as dist
from torch.distributed.elastic.rendezvous import c10d_rendezvous_backend, static_tcp_rendezvous

from vlc.common.errors import UserError

if TYPE_CHECKING:
    from lightning_fabric.plugins.environments import ClusterEnvironment

TELL_AFTER = 10.0  # seconds
# The modules of torch that create stores. (The attribute torch.distributed.rendezvous is a function.)
_CALLERS = (dist, sys.modules["torch.distributed.rendezvous"], c10d_rendezvous_backend, static_tcp_rendezvous)


class _BoundStore(dist.TCPStore):
    """A TCPStore that listens only on the address that it is given; torch's listens on all interfaces.

    Host names are left to torch: on the host itself a name often means a loopback address, which others cannot reach.
    """

    def __init__(self, host_name: str, port: int, world_size=None, is_master=False, *others, **options):
        listener = _listener(host_name, port) if is_master and options.get("master_listen_fd") is None else None
        if listener is not None:
            port, options["master_listen_fd"] = listener.getsockname()[1], listener.detach()
        super().__init__(host_name, port, world_size, is_master, *others, **options)


def bind_stores() -> None:
    """Make all further stores of this process listen only on the address that they are given.

    Processes that meet on a loopback address also keep gloo's connections there.
    """
    for module in _CALLERS:
        module.TCPStore = _BoundStore  # type: ignore[attr-defined]  # modules have no type for it
    if is_loopback(os.environ.get("MASTER_ADDR", "")):
        stay_local()


def stay_local() -> None:
    """Make gloo listen on the loopback interface, in this process and its children."""
    local = [name for _, name in socket.if_nameindex() if name in ("lo", "lo0")]
    if local:
        os.environ.setdefault("GLOO_SOCKET_IFNAME", local[0])


def is_loopback(host: str) -> bool:
    address = _address(host)
    return address is not None and address.is_loopback


def _address(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """Return the address that a text states; None for a host name."""
    with suppress(ValueError):
        return ipaddress.ip_address("127.0.0.1" if host == "localhost" else host)
    return None


def _listener(host: str, port: int) -> socket.socket | None:
    """Open a socket that listens on an address of this host; None for names, foreign addresses and ports in use."""
    address = _address(host)
    if address is None:
        return None
    family = socket.AF_INET if address.version == 4 else socket.AF_INET6
    try:
        return socket.create_server((str(address), port), family=family)
    except OSError as error:
        # The address is behind a router, or the port is in use: torch reports this, or shares the port.
        if error.errno in (errno.EADDRNOTAVAIL, errno.EADDRINUSE):
            return None
        raise


def watch_nodes(environment: "ClusterEnvironment", num_nodes: int) -> None:
    """Without a launcher, report the nodes that do not connect, or raise UserError where none can connect."""
    from lightning_fabric.plugins.environments import (
        LightningEnvironment,
    )  # four seconds, which the launcher does without

    if not isinstance(environment, LightningEnvironment):
        return
    if unset := [name for name in ("MASTER_ADDR", "MASTER_PORT") if name not in os.environ]:
        others = ", ".join(str(node) for node in range(num_nodes) if node != environment.node_rank())
        raise UserError(
            f"num_nodes={num_nodes}, but node {others} cannot find this one: {' and '.join(unset)} are not set. Start on "
            f"each host python -m launch --nnodes={num_nodes} --node_rank=N --master_addr=HOST --master_port=PORT run.py "
            "with ..., or leave num_nodes out"
        )
    if environment.local_rank() == 0:
        tell_missing(environment.main_address, environment.main_port, environment.node_rank(), num_nodes)


def tell_missing(
    host: str, port: int, node: int, num_nodes: int, say: Callable[[str], None] | None = None, after: float = TELL_AFTER
) -> threading.Thread:
    """Watch in a thread whether all nodes reach the store at HOST:PORT, and say once which have not after a while.

    The nodes announce themselves in the store; node 0 looks which of them did.

    say: prints the message, by default to stderr.
    after: seconds.
    """
    say = say or (lambda text: print(text, file=sys.stderr, flush=True))
    ended = threading.Event()

    def watch() -> None:
        started = time.monotonic()
        missing = [0] if node else list(range(num_nodes))
        try:
            # A plain connection first: torch reports one that fails at length, and cannot be left while it tries.
            if _connects(host, port, started + after, ended):
                store = dist.TCPStore(host, port, is_master=False, wait_for_workers=False, timeout=timedelta(seconds=1))
                store.set(f"vlc_node_{node}", "")
                if node:
                    return
                while missing and time.monotonic() - started < after and not ended.wait(0.1):
                    missing = [number for number in missing if not store.check([f"vlc_node_{number}"])]
        except dist.DistError:
            ended.wait(started + after - time.monotonic())  # the store is gone or busy: the program may be ending
        if missing and not ended.is_set():
            nodes = ", ".join(map(str, missing))
            say(
                f"Waiting at {host}:{port} for {num_nodes} nodes since {after:.0f} s: node {nodes} did not come. Start the "
                "same command on each host, with its own node rank, and check that the address is reached from there"
            )

    def end() -> None:
        ended.set()
        thread.join()

    thread = threading.Thread(target=watch, daemon=True)
    thread.start()
    atexit.register(end)  # a thread that is inside torch when Python ends would abort the process
    return thread


def _connects(host: str, port: int, until: float, ended: threading.Event) -> bool:
    """Whether somebody listens at an address before a moment of time.monotonic()."""
    while time.monotonic() < until and not ended.wait(0.1):
        try:
            socket.create_connection((host, port), timeout=1).close()
            return True
        except OSError:
            continue
    return False
