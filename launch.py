"""Start a script in several processes, on one host or many: `python -m launch --nproc_per_node 8 SCRIPT ARGUMENTS`.

It takes the flags of torch.distributed.run and forwards to it. It also takes what published commands pass to the older
torch.distributed.launch: underscores in names, and `--use_env`, which is always on and so has no effect. Restarted workers
(`--max_restarts`) find in VLC_LAUNCHED when this launch began, so they recognise its checkpoints.

Restarted workers must not read what their predecessors left in a shared key-value store: their addresses, where nobody
answers any more (seen with torch 2.13). With dynamic rendezvous each round gets a store of its own; with the static one
`vlc.hardware.distributed.init_process_group_after_restart` separates the attempts.

The store by which processes meet listens only on the address that --master_addr or --rdzv_endpoint gives, if they give one.
With 127.0.0.1 it can be reached from this host only.
"""

# ruff: noqa: E402

import os
import signal
import sys
import time
from argparse import Namespace

# While it is imported, torch reads how much its C++ part says. A store that ends while another thread asks it would be
# reported with twenty stack frames, after the message that says what happened. The workers keep what the user has set.
_SAYS = "TORCH_CPP_LOG_LEVEL"
_SAID_BY_USER = _SAYS in os.environ
os.environ.setdefault(_SAYS, "ERROR")

from torch.distributed import DistError
from torch.distributed.elastic.multiprocessing import SignalException
from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
from torch.distributed.elastic.rendezvous import RendezvousError
from torch.distributed.run import get_args_parser, run

from vlc.common.errors import first_line
from vlc.common.terminal import printable
from vlc.hardware.rendezvous import bind_stores, is_loopback, stay_local, tell_missing

if not _SAID_BY_USER:
    del os.environ[_SAYS]

_SIGNALS = ("SIGTERM", "SIGINT", "SIGHUP", "SIGQUIT", "SIGUSR1")  # passed on to the workers, which then save and stop


def main(words: list[str] | None = None) -> str | int | None:
    """Return the argument for sys.exit: a message where the hosts did not find each other, 1 where a worker failed.

    After a signal it is 128 + the signal's number, as in shells.
    """
    parser = get_args_parser()
    parser.prog = "python -m launch"
    parser.add_argument(
        "--use_env", "--use-env", action="store_true", default=True, help="always so; for older commands"
    )
    # Signals that nohup ignores stay ignored: the launcher stops its workers on every signal that it handles.
    handled = [name for name in _SIGNALS if signal.getsignal(getattr(signal, name)) != signal.SIG_IGN]
    parser.set_defaults(signals_to_handle=",".join(handled))
    arguments = parser.parse_args(words)
    started = time.time()
    os.environ["VLC_LAUNCHED"] = str(started)
    os.environ.setdefault("TORCH_ELASTIC_SHUTDOWN_TIMEOUT", "120")  # seconds in which workers can save before SIGKILL
    os.environ.setdefault("TORCH_DISABLE_SHARE_RDZV_TCP_STORE", "1")
    bind_stores()
    host, port = _meeting_place(arguments)
    if is_loopback(host):
        stay_local()
        arguments.local_addr = arguments.local_addr or "127.0.0.1"  # workers have stores of their own there
    if arguments.rdzv_backend == "static" and arguments.nnodes.isdecimal() and int(arguments.nnodes) > 1:
        tell_missing(host, port, arguments.node_rank, int(arguments.nnodes))
    try:
        run(arguments)
    except ChildFailedError as error:
        print(error, file=sys.stderr)
        return 1
    except SignalException as stop:
        print(f"launch: {stop.sigval.name} was passed on to the workers, which have stopped", file=sys.stderr)
        return 128 + stop.sigval
    except (DistError, RendezvousError) as error:
        return _no_meeting(arguments, error, time.time() - started)
    return None


def _meeting_place(arguments: Namespace) -> tuple[str, int]:
    """Host and port at which the processes look for each other."""
    if arguments.standalone:
        return "localhost", 0
    if not arguments.rdzv_endpoint:
        return arguments.master_addr, arguments.master_port
    host, _, port = arguments.rdzv_endpoint.rpartition(":")
    if not (host and port.isdecimal()):
        host, port = arguments.rdzv_endpoint, str(arguments.master_port)
    return host.strip("[]"), int(port)


def _no_meeting(arguments: Namespace, error: Exception, seconds: float) -> str:
    """The message for hosts that did not find each other: it names the host and port that did not answer, and the time."""
    place = arguments.rdzv_endpoint or f"{arguments.master_addr}:{arguments.master_port}"
    causes = []
    cause: BaseException | None = error
    while cause is not None:
        causes.append(first_line(cause).strip())
        cause = cause.__cause__
    reason = " / ".join(dict.fromkeys(causes))
    if "EADDRINUSE" in reason or "address already in use" in reason.lower():
        return f"launch: {place} cannot be used here: the port is taken by another program. Pass another --master_port"
    if "clients joined" in reason or "waiting for clients" in reason:
        who, hint = (
            f"Not all of --nnodes={arguments.nnodes} hosts came to {place}",
            "start the same command on each host",
        )
    else:
        who, hint = f"{place} did not answer", "check --master_addr, --master_port, and that node 0 is running"
    limit = "--rdzv_conf timeout=SECONDS (c10d: read_timeout and join_timeout) changes how long is waited"
    return f"launch: {who} within {seconds:.0f} s ({reason}): {hint}, with its own --node_rank. {limit}"


if __name__ == "__main__":
    result = main()
    sys.exit(printable(result) if isinstance(result, str) else result)
