"""A server in a process of its own, and the small random model that it serves."""

import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from benchmarks.report import ROOT
from tests import tiny
from vlc.training.run import build_data, build_module
from vlc.use.model import Model

TASKS = (
    "pretraining_multi30k,vqa,nlvr2,snli_ve,retrieval_emoji,translation_retrieval,visdial,vcr_qa,refer_emoji,"
    "guesswhat_oracle,translation_multi30k,caption_coco,mlt"
)
_TICKS = os.sysconf("SC_CLK_TCK")


def random_checkpoint(folder: Path) -> Path:
    """Write a checkpoint of a random model of width 192 with a head of each form."""
    arrows = tiny.write_catalog(folder / "arrows")
    settings = tiny.settings(tasks=TASKS.split(","), data_root=str(arrows), vit="mae_vit_tiny_patch16")
    torch.manual_seed(0)
    module = build_module(settings, build_data(settings))
    torch.save({"state_dict": module.state_dict(), "vlc": module.extras}, folder / "random.ckpt")
    return folder / "random.ckpt"


def opened(checkpoint: Path, batch: int) -> Model:
    """The model of a checkpoint, as the server opens it."""
    return Model.from_checkpoint(checkpoint, num_gpus=0, per_gpu_batchsize=batch)


class Server:
    """`python run.py serve` in a process of its own.

    host, port: where it listens.
    process: of the server.
    """

    def __init__(self, checkpoint: Path, batch: int, **service: object):
        options = {"port": 0, **service}
        words = [f"load_path={checkpoint}", f"per_gpu_batchsize={batch}", "num_gpus=0"]
        words += [f"service.{key}={value}" for key, value in options.items()]
        command = [sys.executable, "run.py", "serve", "with", *words]
        self.process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True)
        assert self.process.stdout is not None
        for line in self.process.stdout:
            if found := re.search(r"Listening at http://([\d.]+):(\d+)", line):
                self.host, self.port = found[1], int(found[2])
                self._wait()
                return
        raise RuntimeError(f"the server ended with {self.process.wait()} before it listened")

    def _wait(self) -> None:
        """Wait until connections are taken."""
        while True:
            try:
                socket.create_connection((self.host, self.port)).close()
                return
            except ConnectionRefusedError:
                time.sleep(0.1)

    @property
    def cpu_seconds(self) -> float:
        """Of all its threads and of the processes that it started, in user and in system mode."""
        started = self._file(f"task/{self.process.pid}/children").read_text().split()
        ticks = 0
        for number in (self.process.pid, *started):
            fields = Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()
            ticks += int(fields[11]) + int(fields[12])
        return ticks / _TICKS

    def status(self, name: str) -> int:
        """What Linux states of the process by a name: VmRSS in kilobytes, Threads as their number."""
        lines = dict(line.split(":", 1) for line in self._file("status").read_text().splitlines())
        return int(lines[name].split()[0])

    @property
    def open_files(self) -> int:
        return len(os.listdir(self._file("fd")))

    def stop(self, how: int = signal.SIGTERM) -> int:
        """Send a signal, and return the exit status."""
        self.process.send_signal(how)
        return self.process.wait(60)

    def _file(self, name: str) -> Path:
        return Path(f"/proc/{self.process.pid}/{name}")


@contextmanager
def server(checkpoint: Path, batch: int, **service: object) -> Iterator[Server]:
    """A running server, which is stopped in the end."""
    running = Server(checkpoint, batch, **service)
    try:
        yield running
    finally:
        if running.process.poll() is None:
            running.stop()
