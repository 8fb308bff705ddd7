"""The launcher: flags, and what it says where hosts do not find each other. Runs are in test_run and test_main_finetune."""

import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from functools import partial
from pathlib import Path

import pytest
import torch.distributed as dist

from tests.warm import command
from vlc.hardware import rendezvous

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "ranks.py"
    path.write_text(
        "import os\n"
        'names = ("RANK", "WORLD_SIZE", "VLC_LAUNCHED", "TORCH_CPP_LOG_LEVEL")\n'
        'ranks = " ".join(os.environ.get(name, "unset") for name in names)\n'
        'os.write(1, f"{ranks}\\n".encode())\n'  # in one piece: processes write to the same pipe
    )
    return path


def test_the_published_flags_start_processes(script, free_port):
    flags = [
        "--nnodes=1",
        "--node_rank=0",
        "--nproc_per_node=2",
        "--master_addr=127.0.0.1",
        f"--master_port={free_port}",
    ]
    started = [sys.executable, "-m", "launch", *flags, "--use_env", script]
    done = subprocess.run(started, cwd=REPOSITORY, capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    ranks = sorted(line.split() for line in done.stdout.splitlines())
    assert [rank[:2] for rank in ranks] == [["0", "2"], ["1", "2"]]
    assert ranks[0][2] == ranks[1][2]
    assert ranks[0][3] == "unset", "only the launcher's own C++ warnings are silenced"


def test_a_failing_script_fails_the_launch(tmp_path):
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    done = command("-m", "launch", "--standalone", "--nproc_per_node=1", tmp_path / "fails.py")
    assert done.returncode == 1
    assert "fails.py FAILED" in done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_hosts_that_do_not_come_are_named_with_the_time_waited(script, free_port, rank):
    flags = ["--nnodes=2", f"--node_rank={rank}", "--master_addr=127.0.0.1", f"--master_port={free_port}"]
    done = command("-m", "launch", *flags, "--rdzv_conf", "timeout=2", script)
    assert done.returncode == 1
    (said,) = [line for line in done.stderr.splitlines() if line.startswith("launch: ")]
    expected = "Not all of --nnodes=2 hosts came to" if rank == 0 else ""
    assert said.startswith(f"launch: {expected}")
    assert f"127.0.0.1:{free_port}" in said
    assert " within " in said
    assert "Traceback" not in done.stderr


def test_an_unknown_host_is_named(script):
    flags = ["--nnodes=2", "--node_rank=1", "--master_addr=no-such-host.invalid", "--master_port=29500"]
    done = command("-m", "launch", *flags, "--rdzv_conf", "timeout=1", script)
    assert done.returncode == 1
    assert "launch: no-such-host.invalid:29500 did not answer within" in done.stderr


def test_a_taken_port_is_named(script):
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = command("-m", "launch", "--nnodes=1", "--master_addr=127.0.0.1", f"--master_port={port}", script)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be used here: the port is taken" in done.stderr


def test_the_slurm_script_is_put_into_the_queue_again_and_goes_on():
    script = (REPOSITORY / "scripts/slurm.sbatch").read_text()
    assert {"#SBATCH --requeue", "#SBATCH --signal=USR1@120"} <= set(script.splitlines())
    assert "--resume auto" in script


_SAVES = """
import os, signal, sys, time
def saved(number, frame):
    time.sleep(1)
    os.write(1, f"saved after {signal.Signals(number).name}\\n".encode())
    sys.exit(128 + number)
for name in ("SIGTERM", "SIGINT", "SIGUSR1", "SIGHUP"):
    signal.signal(getattr(signal, name), saved)
os.write(1, b"ready\\n")
time.sleep(60)
"""


@pytest.mark.parametrize(("name", "status"), [("SIGTERM", 143), ("SIGINT", 130)])
def test_signals_are_passed_on_and_waited_for(tmp_path, name, status):
    (tmp_path / "saves.py").write_text(_SAVES)
    words = [sys.executable, "-m", "launch", "--standalone", "--nproc_per_node=2", str(tmp_path / "saves.py")]
    python_handlers = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGINT, signal.SIGHUP)}
    process = subprocess.Popen(words, cwd=REPOSITORY, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    for number, handler in python_handlers.items():
        signal.signal(number, handler)
    assert process.stdout.readline() == process.stdout.readline() == "ready\n"
    process.send_signal(getattr(signal, name))
    shown, errors = process.communicate(timeout=60)
    assert shown == f"saved after {name}\n" * 2
    assert process.returncode == status, errors
    assert "Traceback" not in errors
    assert f"launch: {name} was passed on to the workers" in errors


def test_the_slurm_script_is_sound():
    subprocess.run(["bash", "-n", str(REPOSITORY / "scripts/slurm.sbatch")], check=True)


LISTENING = """
import json, os, sys, time
import torch.distributed as dist
sys.path.insert(0, os.getcwd())
from vlc.hardware.rendezvous import bind_stores
bind_stores()
dist.init_process_group("gloo")
dist.barrier()
if dist.get_rank() == 0:
    found = []
    for name in ("tcp", "tcp6"):
        for line in open(f"/proc/net/{name}").read().splitlines()[1:]:
            words = line.split()
            if words[3] == "0A":  # listens
                found.append((words[9], words[1]))
    owned = {}
    for process in (os.getpid(), os.getppid()):
        for number in os.listdir(f"/proc/{process}/fd"):
            try:
                owned[os.readlink(f"/proc/{process}/fd/{number}")] = process == os.getpid()
            except OSError:
                pass
    listening = [(place, owned[f"socket:[{inode}]"]) for inode, place in found if f"socket:[{inode}]" in owned]
    os.write(1, (json.dumps(listening) + "\\n").encode())
dist.barrier()
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
@pytest.mark.parametrize("kind", ["static", "standalone", "c10d"])
def test_a_local_launch_listens_on_the_loopback_address_alone(tmp_path, free_port, kind):
    (tmp_path / "listens.py").write_text(LISTENING)
    flags = {
        "static": ["--master_addr=127.0.0.1", f"--master_port={free_port}"],
        "standalone": ["--standalone"],
        "c10d": ["--rdzv_backend=c10d", f"--rdzv_endpoint=localhost:{free_port}", "--rdzv_id=1"],
    }[kind]
    done = command("-m", "launch", "--nproc_per_node=2", *flags, tmp_path / "listens.py")
    assert done.returncode == 0, done.stderr
    (line,) = [line for line in done.stdout.splitlines() if line.startswith("[[")]
    listening = json.loads(line)
    assert listening
    for place, _ in listening:
        address = place.split(":")[0]
        assert address in ("0100007F", "00000000000000000000000001000000"), f"{place} is reached from elsewhere"


def test_stores_listen_where_they_are_asked_to(free_port):
    """Addresses are taken literally; names, and addresses that are not of this host, are left to torch."""
    listener = rendezvous._listener("127.0.0.1", free_port)
    with listener:
        assert listener.getsockname() == ("127.0.0.1", free_port)
        assert rendezvous._listener("127.0.0.1", free_port) is None, "torch tells that it is taken"
    assert rendezvous._listener("192.0.2.1", free_port) is None
    assert rendezvous._listener("a-host", free_port) is None
    assert rendezvous.is_loopback("localhost")
    assert rendezvous.is_loopback("127.0.1.1")
    assert rendezvous.is_loopback("::1")
    assert not rendezvous.is_loopback("10.0.0.1")
    assert not rendezvous.is_loopback("a-host")


def test_nodes_that_do_not_come_are_told(free_port):
    said: list[str] = []
    store = dist.TCPStore("127.0.0.1", free_port, is_master=True, wait_for_workers=False)
    watch = partial(rendezvous.tell_missing, "127.0.0.1", free_port, num_nodes=4, say=said.append, after=2.0)
    threads = [watch(node=node) for node in (2, 0)]
    for thread in threads:
        thread.join(20)
    assert said == [said[0]]
    assert f"Waiting at 127.0.0.1:{free_port} for 4 nodes since 2 s: node 1, 3 did not come" in said[0]
    threads = [watch(node=node) for node in (1, 3, 0)]
    for thread in threads:
        thread.join(20)
    assert len(said) == 1, "all have come"
    del store
    watch(node=1).join(20)
    assert "node 0 did not come" in said[1]


def test_the_launcher_tells_after_ten_seconds(script, free_port):
    flags = ["--nnodes=2", "--node_rank=0", "--master_addr=127.0.0.1", f"--master_port={free_port}"]
    started = time.monotonic()
    done = command("-m", "launch", *flags, "--rdzv_conf", "timeout=14", script)
    assert time.monotonic() - started > 14
    assert f"Waiting at 127.0.0.1:{free_port} for 2 nodes since 10 s: node 1 did not come" in done.stderr


def _run_on_two_nodes(arrows, log_dir, **environment) -> subprocess.Popen:
    words = ["task_finetune_vqa_mae_randaug", "num_nodes=2", "num_gpus=0", "per_gpu_batchsize=2", "batch_size=4"]
    words += ["vit=mae_vit_tiny_patch16", "image_size=32", "tokenizer=emoji", "vocab_size=None", "num_workers=0"]
    words += ["vqav2_label_size=3", "max_steps=1", f"data_root={arrows}", f"log_dir={log_dir}"]
    kept = {name: value for name, value in os.environ.items() if name not in ("MASTER_ADDR", "MASTER_PORT")}
    started = [sys.executable, "run.py", "with", *words]
    return subprocess.Popen(started, cwd=REPOSITORY, env={**kept, **environment}, stderr=subprocess.PIPE, text=True)


def test_two_nodes_without_a_launcher(arrows, tmp_path, free_port):
    """Refused where they cannot find each other; told who is missing where they could."""
    _, said = _run_on_two_nodes(arrows, tmp_path).communicate(timeout=100)
    assert "num_nodes=2, but node 1 cannot find this one: MASTER_ADDR and MASTER_PORT are not set" in said
    assert "Traceback" not in said
    waiting = _run_on_two_nodes(arrows, tmp_path, MASTER_ADDR="127.0.0.1", MASTER_PORT=str(free_port), NODE_RANK="0")
    timer = threading.Timer(100, waiting.kill)
    timer.start()
    try:
        told = next((line for line in waiting.stderr if "Waiting at" in line), "")
    finally:
        waiting.kill()
        waiting.wait()
        timer.cancel()
    assert f"Waiting at 127.0.0.1:{free_port} for 2 nodes since 10 s: node 1 did not come" in told
