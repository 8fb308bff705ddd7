"""torch, and what training imports, in processes of their own: a damaged installation may end a process without error."""

import json
import signal
import subprocess
import sys
from dataclasses import dataclass, field
from functools import cache
from typing import Any

_SECONDS = 120


@dataclass(frozen=True)
class Answer:
    """facts: what the process says; empty where it fails. failure: why, "" where it does not fail."""

    facts: dict[str, Any] = field(default_factory=dict)
    failure: str = ""


@cache
def start(question: str) -> subprocess.Popen:
    """Have another process answer a question of QUESTIONS; once, whoever asks."""
    command = [sys.executable, "-m", "vlc.workflows.doctor.torch_process", question]
    return subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")


@cache
def answer(question: str) -> Answer:
    """Wait for the answer."""
    process = start(question)
    try:
        printed, said = process.communicate(timeout=_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        return Answer(failure=f"the import had not ended after {_SECONDS} s")
    if process.returncode == 0:
        return Answer(json.loads(printed.splitlines()[-1]))
    if process.returncode < 0:
        return Answer(failure=f"its process was ended by {signal.Signals(-process.returncode).name}")
    lines = [line for line in said.splitlines() if line.strip()]
    return Answer(failure=lines[-1] if lines else f"its process ended with status {process.returncode}")


def _torch() -> dict[str, Any]:
    import torch

    from vlc.hardware.torchvision_ops import has_compiled_operators

    return {
        "version": torch.__version__,
        "cuda": torch.version.cuda or torch.version.hip,
        "threads": torch.get_num_threads(),
        "gpus": [_gpu(number) for number in range(torch.cuda.device_count())],
        "architectures": torch.cuda.get_arch_list(),
        "mps": torch.backends.mps.is_available(),
        "torchvision_operators": has_compiled_operators(),
    }


def _gpu(number: int) -> dict[str, Any]:
    """What a GPU is; failure: the text of the error of a small product on it."""
    import torch

    device = torch.device("cuda", number)
    found = torch.cuda.get_device_properties(device)
    try:
        free, total = torch.cuda.mem_get_info(device)
        product = torch.ones(16, 16, device=device) @ torch.ones(16, 16, device=device)
        failure = "" if product.sum().item() == 16**3 else "it computes a wrong product of two matrices"
    except RuntimeError as error:
        free, total, failure = 0, found.total_memory, str(error).splitlines()[0]
    return {
        "name": found.name,
        "capability": f"{found.major}.{found.minor}",
        "free": free,
        "memory": total,
        "bfloat16": torch.cuda.is_bf16_supported(including_emulation=False),
        "flash_attention": torch.backends.cuda.is_flash_attention_available() and found.major >= 8,
        "failure": failure,
    }


def _training() -> dict[str, Any]:
    import vlc.training.run  # noqa: F401  # with everything that it imports
    from vlc.hardware.onednn import computes_bfloat16

    return {"cpu_bfloat16": computes_bfloat16("cpu")}


QUESTIONS = {"torch": _torch, "training": _training}

if __name__ == "__main__":
    print(json.dumps(QUESTIONS[sys.argv[1]]()))
