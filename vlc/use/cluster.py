"""A command in many processes of a Ray cluster, which share its shards through the folder that they write."""

import os
import time
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from vlc.common.errors import UserError, first_line
from vlc.common.terminal import progress
from vlc.use.shards import UNFINISHED, Process

Command = Callable[[Mapping[str, Any], Collection[str], Process], Any]


def run_on_ray(command: Command, config: Mapping[str, Any], given: Collection[str], address: str, folder: Path) -> Any:
    """Run a command on every GPU of a cluster, or else on every CPU core; returns what the first process returns.

    All nodes have to reach the checkpoint, the data and the folder of the results by the same paths. A process that dies
    with its node is started again. Raises UserError where Ray is missing or the address does not answer, and where the
    command does.

    address: of the cluster, or "local" for one on this machine.
    folder: where the results go; the finished shards there are counted.
    """
    try:
        import ray
    except ImportError as error:
        raise UserError('ray=... needs Ray, which is not installed: pip install -e ".[ray]"') from error
    options: dict[str, Any] = {"log_to_driver": False, "configure_logging": False}
    if address == "local":
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")  # Ray would ask clouds' addresses and report its use
        options |= {"include_dashboard": False}
    else:
        import vlc

        options |= {"runtime_env": {"py_modules": [vlc]}}  # nodes may not have this suite installed
    already = ray.is_initialized()  # by a program that calls this from Python
    try:
        if not already:
            ray.init(address=address, **options)
    except (ConnectionError, ValueError) as error:
        raise UserError(f"ray={address}: {error}") from error
    try:
        resources, since = ray.cluster_resources(), time.time()
        gpus = int(resources.get("GPU", 0)) if config["num_gpus"] else 0
        count = gpus or max(1, int(resources.get("CPU", 1)))
        remote = ray.remote(num_cpus=1, num_gpus=1 if gpus else 0)(_run)
        alone = {**config, "ray": None, "num_gpus": 1 if gpus else 0}
        calls = [remote.remote(command, alone, set(given), Process(rank, count, since)) for rank in range(count)]
        seen, waiting = 0, calls
        with progress("shards", None) as advance:
            while waiting:
                _, waiting = ray.wait(waiting, num_returns=len(waiting), timeout=1)
                found = sum(1 for _ in (folder / UNFINISHED).glob("*-*.json"))
                advance(max(0, found - seen))  # they vanish when all are put together
                seen = max(seen, found)
        return ray.get(calls)[0]
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, UserError):
            raise error.cause from error
        raise
    except ray.exceptions.RayError as error:
        raise UserError(f"ray={address}: {first_line(error)}. The same command goes on with the rest") from error
    finally:
        if not already:
            ray.shutdown()


def _run(command: Command, config: Mapping[str, Any], given: Collection[str], process: Process) -> Any:
    return command(config, given, process)
