"""What computes: the processor, its memory and its limits, and GPUs."""

import os
import platform
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

from vlc.workflows.doctor import torch_process
from vlc.workflows.doctor.finding import Asked, Finding, note, ok, problem, size

_CPUINFO, _MEMINFO, _CGROUP = Path("/proc/cpuinfo"), Path("/proc/meminfo"), Path("/sys/fs/cgroup")
_FAST = ("avx2", "avx512f", "avx512_bf16", "amx_tile")  # flags of x86 that torch's and oneDNN's products use
_LITTLE_MEMORY = 4e9


def probe_processor(asked: Asked) -> Iterator[Finding]:
    """Look at the instructions of the processor, the cores and the memory that this process may use."""
    flags, name = _processor()
    fast = [flag for flag in _FAST if flag in flags]
    yield ok(f"{name}: {', '.join(fast)}" if fast else name)
    if platform.machine() in ("x86_64", "AMD64") and flags and "avx2" not in flags:
        yield note("the processor has no AVX2: torch computes many times slower than on others")
    cores, quota = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1, _quota()
    yield ok(f"{cores} cores" + (f", of which the container may use {quota:g}" if quota else ""))
    facts = torch_process.answer("torch").facts
    if quota and facts and facts["threads"] > quota + 1:
        yield note(
            f"torch computes with {facts['threads']} threads on {quota:g} cores", f"export OMP_NUM_THREADS={quota:.0f}"
        )
    yield from _memory()


def _processor() -> tuple[set[str], str]:
    """The flags of the first processor, and its name."""
    text = _CPUINFO.read_text(errors="replace") if _CPUINFO.is_file() else ""
    values = dict(reversed([line.split(":", 1) for line in text.splitlines() if ":" in line]))
    known = {key.strip(): value.strip() for key, value in values.items()}
    flags = known.get("flags", known.get("Features", ""))
    return set(flags.split()), known.get("model name") or platform.processor() or platform.machine()


def _quota() -> float | None:
    """The cores that the container may use; None: there is no limit."""
    new, old = _CGROUP / "cpu.max", _CGROUP / "cpu/cpu.cfs_quota_us"
    if new.is_file():
        quota, period = new.read_text().split()
    elif old.is_file():
        quota, period = old.read_text().strip(), old.with_name("cpu.cfs_period_us").read_text().strip()
    else:
        return None
    return None if quota in ("max", "-1") else int(quota) / int(period)


def _memory() -> Iterator[Finding]:
    if not _MEMINFO.is_file():
        return
    rows = (line.split() for line in _MEMINFO.read_text().splitlines())
    known = {row[0].rstrip(":"): int(row[1]) * 1024 for row in rows if len(row) > 1}
    total, available = known["MemTotal"], known["MemAvailable"]
    limits = [path for path in (_CGROUP / "memory.max", _CGROUP / "memory/memory.limit_in_bytes") if path.is_file()]
    limit = limits[0].read_text().strip() if limits else "max"
    if limit != "max" and int(limit) < total:
        total = available = int(limit)
        yield ok(f"the container may use {size(total)} of memory")
    else:
        yield ok(f"{size(total)} of memory, {size(available)} of it free")
    if available < _LITTLE_MEMORY:
        yield note(
            f"{size(available)} of memory are little for training", "per_gpu_batchsize=4 num_workers=0 need less"
        )


def probe_gpus(asked: Asked) -> Iterator[Finding]:
    """Look at the GPUs that torch sees, and compare them with those that the driver sees."""
    found = torch_process.answer("torch")
    facts, driven = found.facts, _of_the_driver()
    if not facts:
        yield problem(f"torch cannot be imported: {found.failure}", "python -m pip install -r requirements.txt")
        return
    yield ok(
        f"torch {facts['version']}, " + (f"built for CUDA {facts['cuda']}" if facts["cuda"] else "built for the CPU")
    )
    if not facts["torchvision_operators"]:
        yield note("torchvision's compiled operators cannot be loaded beside this torch; vlc does without them")
    if driven and not facts["gpus"]:
        why = (
            f"is built for CUDA {facts['cuda']}, which this driver may be too old for"
            if facts["cuda"]
            else "is built for the CPU"
        )
        cure = "install the build of torch and torchvision for this driver (pytorch.org names the command)"
        yield problem(f"the driver has {len(driven)} GPUs ({driven[0]}), and torch sees none: it {why}", cure)
    if not facts["gpus"] and not driven:
        yield ok("no GPU: the CPU computes (num_gpus=0 or any other number)")
    if facts["mps"]:
        yield note("Apple's GPU is there, and vlc does not use it: it computes on CUDA devices and CPUs")
    for number, gpu in enumerate(facts["gpus"]):
        yield from _gpu(number, gpu, facts["architectures"])


def _of_the_driver() -> list[str]:
    """The GPUs that the driver names; none without nvidia-smi."""
    if shutil.which("nvidia-smi") is None:
        return []
    command = ["nvidia-smi", "--query-gpu=name,driver_version", "--format=csv,noheader"]
    ended = subprocess.run(command, capture_output=True, text=True, timeout=10)
    return [line.replace(",", ", driver") for line in ended.stdout.splitlines()] if ended.returncode == 0 else []


def _gpu(number: int, gpu: dict, architectures: list[str]) -> Iterator[Finding]:
    text = f"GPU {number}: {gpu['name']}, {size(gpu['free'])} of {size(gpu['memory'])} free, capability {gpu['capability']}"
    if gpu["failure"]:
        built = f"; this torch has code for {', '.join(architectures)}" if architectures else ""
        cure = "install a build of torch for this GPU (pytorch.org names the command), or pass num_gpus=0"
        yield problem(f"{text}: it does not compute ({gpu['failure']}){built}", cure)
        return
    bfloat16 = "bfloat16" if gpu["bfloat16"] else "no bfloat16 (precision=16 is float16)"
    attention = "flash attention" if gpu["flash_attention"] else "no flash attention"
    yield ok(f"{text}, {bfloat16}, {attention}")
    if gpu["free"] < 0.5 * gpu["memory"]:
        yield note(f"more than half of the memory of GPU {number} is in use", "nvidia-smi names the processes")
