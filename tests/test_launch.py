"""The launcher: flags, and what it says where hosts do not find each other. Runs are in test_run and test_main_finetune."""

import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[1]


@pytest.fixture
def script(tmp_path) -> Path:
    path = tmp_path / "ranks.py"
    path.write_text(
        "import os\n"
        'ranks = " ".join(os.environ[name] for name in ("RANK", "WORLD_SIZE", "VLC_LAUNCHED"))\n'
        'os.write(1, f"{ranks}\\n".encode())\n'  # in one piece: processes write to the same pipe
    )
    return path


def _launch(*words: str | Path) -> subprocess.CompletedProcess:
    command = [sys.executable, "-m", "launch", *map(str, words)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=REPOSITORY, env=environment, capture_output=True, text=True, timeout=60)


def test_the_published_flags_start_processes(script, free_port):
    flags = [
        "--nnodes=1",
        "--node_rank=0",
        "--nproc_per_node=2",
        "--master_addr=127.0.0.1",
        f"--master_port={free_port}",
    ]
    done = _launch(*flags, "--use_env", script)
    assert done.returncode == 0, done.stderr
    ranks = sorted(line.split() for line in done.stdout.splitlines())
    assert [rank[:2] for rank in ranks] == [["0", "2"], ["1", "2"]]
    assert ranks[0][2] == ranks[1][2]


def test_a_failing_script_fails_the_launch(tmp_path):
    (tmp_path / "fails.py").write_text("raise SystemExit(3)")
    done = _launch("--standalone", "--nproc_per_node=1", tmp_path / "fails.py")
    assert done.returncode == 1
    assert "fails.py FAILED" in done.stderr


@pytest.mark.parametrize("rank", [0, 1])
def test_hosts_that_do_not_come_are_named_with_the_time_waited(script, free_port, rank):
    flags = ["--nnodes=2", f"--node_rank={rank}", "--master_addr=127.0.0.1", f"--master_port={free_port}"]
    done = _launch(*flags, "--rdzv_conf", "timeout=2", script)
    assert done.returncode == 1
    last = done.stderr.strip().splitlines()[-1]
    expected = "Not all of --nnodes=2 hosts came to" if rank == 0 else ""
    assert last.startswith(f"launch: {expected}")
    assert f"127.0.0.1:{free_port}" in last
    assert " within " in last
    assert "Traceback" not in done.stderr


def test_an_unknown_host_is_named(script):
    flags = ["--nnodes=2", "--node_rank=1", "--master_addr=no-such-host.invalid", "--master_port=29500"]
    done = _launch(*flags, "--rdzv_conf", "timeout=1", script)
    assert done.returncode == 1
    assert "launch: no-such-host.invalid:29500 did not answer within" in done.stderr


def test_a_taken_port_is_named(script):
    with socket.socket() as listener:
        listener.bind(("0.0.0.0", 0))
        listener.listen()
        port = listener.getsockname()[1]
        done = _launch("--nnodes=1", "--master_addr=127.0.0.1", f"--master_port={port}", script)
    assert done.returncode == 1
    assert f"127.0.0.1:{port} cannot be used here: the port is taken" in done.stderr


def test_the_slurm_script_is_sound():
    subprocess.run(["bash", "-n", str(REPOSITORY / "scripts/slurm.sbatch")], check=True)
