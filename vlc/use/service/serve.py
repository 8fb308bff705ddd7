"""`python run.py serve`: the service on this machine, until it is interrupted."""

import gc
import ipaddress
import json
import logging
import os
import re
import signal
import socket
import tempfile
from collections.abc import Callable, Collection, Mapping
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import torch

from vlc.common.errors import UserError
from vlc.configuration.command_settings import ServiceSettings
from vlc.configuration.use_settings import UseSettings
from vlc.use.model import Model, open_pretrained
from vlc.use.service.processes import Processes

_STOP_S = 10  # after the time limit of a request, for those that are under way when the service is stopped


def serve(config: Mapping[str, Any], given: Collection[str]) -> None:
    """Listen and answer until SIGINT or SIGTERM; then answer what is under way, and return.

    Raises UserError where a checkpoint cannot be used, or the address is taken.
    """
    try:
        import uvicorn  # noqa: F401
        from prometheus_client.multiprocess import mark_process_dead

        import vlc.use.service.app  # noqa: F401
        from vlc.use.service.metrics import SHARED
    except ImportError as error:
        raise UserError(f'serve needs packages that are not installed ({error}): pip install -e ".[serve]"') from error
    settings = UseSettings.from_config(config).service
    listener = _listener(settings)
    if not (settings.key or _is_of_this_machine(settings.host)):
        _warn(f"This service listens at {settings.host} and asks for no key: whoever reaches it may use it.")
        _warn("Pass service.api_key=KEY, set VLC_API_KEY, or listen at service.host=127.0.0.1.")

    def ready(heads: Collection[str]) -> None:
        host, port = listener.getsockname()[:2]
        print(f"Listening at http://{host}:{port} with the heads {', '.join(heads)}", flush=True)

    if settings.processes == 1:
        _answer(config, given, listener, ready)
        return
    with tempfile.TemporaryDirectory() as folder:
        os.environ[SHARED] = folder  # by which they add up what they count
        answer = partial(_answer, json.loads(json.dumps(config)), list(given), listener)
        Processes(answer, partial(mark_process_dead, path=folder)).run(settings.processes, ready)


def _answer(
    config: Mapping[str, Any], given: Collection[str], listener: socket.socket, ready: Callable[[Collection[str]], None]
) -> None:
    """Answer as one process, which has its part of the threads of the machine and of the places for requests."""
    import uvicorn

    from vlc.use.service.app import create_app

    use = UseSettings.from_config(config)
    count = use.service.processes
    if count > 1:
        torch.set_num_threads(max(1, torch.get_num_threads() // count))
    settings = replace(use.service, queue=max(1, use.service.queue // count))
    app = create_app(open_models(config, given), settings, use.index or "")
    service = app.state.service

    class Server(uvicorn.Server):
        def handle_exit(self, sig: int, frame: Any) -> None:
            """Stop when all requests are answered, and at a second SIGINT at once. uvicorn's own sends the signal again."""
            service.stopping = True
            self.force_exit = self.should_exit and sig == signal.SIGINT
            self.should_exit = True

    logging.basicConfig(format="%(asctime)s %(levelname)s %(message)s")
    grace = int(settings.timeout_s) + _STOP_S
    options: dict[str, Any] = {
        "log_level": "warning",
        "access_log": False,
        "server_header": False,
        "timeout_graceful_shutdown": grace,
    }
    gc.collect()
    gc.freeze()  # of what lives as long as the service, nothing needs to be looked at again and again
    listener.listen()  # who connects from now on waits until the server is up
    ready(list(service.heads))
    Server(uvicorn.Config(app, **options)).run(sockets=[listener])


def open_models(config: Mapping[str, Any], given: Collection[str]) -> dict[str, Model]:
    """Open load_path, under the name of its file, and service.checkpoints. Raises UserError."""
    further = UseSettings.from_config(config).service.checkpoints
    paths = {re.sub(r"[^\w-]", "_", Path(config["load_path"]).stem): config["load_path"]} if config["load_path"] else {}
    if clashing := paths.keys() & further.keys():
        raise UserError(
            f"service.checkpoints names another checkpoint {clashing.pop()}, as load_path is: take another name"
        )
    paths |= further
    if not paths:
        raise UserError("load_path=CHECKPOINT is missing (or service.checkpoints.NAME=PATH): what should answer?")
    return {name: open_pretrained({**config, "load_path": path}, given) for name, path in paths.items()}


def _listener(settings: ServiceSettings) -> socket.socket:
    """A socket at the address, taken before checkpoints are read, as these take long. Raises UserError."""
    family = socket.AF_INET6 if ":" in settings.host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        listener.bind((settings.host, settings.port))
    except OSError as error:
        listener.close()
        reason = error.strerror or str(error)
        raise UserError(
            f"service.host={settings.host} service.port={settings.port} cannot be listened at ({reason}): pass another"
        ) from error
    return listener


def _is_of_this_machine(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _warn(text: str) -> None:
    print(f"WARNING: {text}", flush=True)
