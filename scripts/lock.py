"""Write the locks: `make lock`. Every package that vlc and its tests need, with its version and the SHA-256 of its files.

uv finds versions that fit Linux and macOS and Python 3.10 to 3.13 at once. There are four files:

* locks/base.txt: what requirements.txt needs, but for torch;
* locks/torch.txt: torch from PyPI, which on Linux is a CUDA build, and NVIDIA's packages;
* locks/torch-cpu.txt: in its place PyTorch's own build for the CPU, which needs none of them;
* locks/tests.txt: what requirements-dev.txt needs further.

usage: python scripts/lock.py UV
"""

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[1]
OPTIONS = "--universal --python-version 3.10 --no-header --no-annotate --quiet --constraints constraints.txt".split()
# PyTorch's own builds for the CPU are no files of PyPI, so that uv does not know them. `pip hash FILE` prints a hash.
CPU_BUILDS = {"cp311 linux x86_64": "6746dbcbeb526eb61330b76b41ff1b4eb848951103a892eeb080dfa2b264667b"}
_WITH_TORCH = re.compile(r"(torch==|nvidia-|cuda-|triton==)")


def compiled(uv: str, requirements: str, *options: str) -> dict[str, str]:
    """Return the lines of each requirement by package and marker, as uv resolves a file of requirements."""
    command = [uv, "pip", "compile", *OPTIONS, *options, requirements]
    printed = subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True).stdout
    blocks = re.split(r"\n(?=\S)", printed.rstrip())
    return {block.split(" \\")[0]: block for block in blocks}


def main(uv: str) -> None:
    everything = compiled(uv, "requirements-dev.txt", "--generate-hashes")
    pins = ROOT / "locks/all.txt"
    pins.parent.mkdir(exist_ok=True)
    pins.write_text("\n".join(everything) + "\n")  # so that both resolutions choose the same versions
    base = {re.split(r"[=\s]", requirement)[0] for requirement in compiled(uv, "requirements.txt", "-c", str(pins))}
    pins.unlink()
    files: dict[str, list[str]] = {"base": [], "torch": [], "torch-cpu": [], "tests": []}
    for requirement, block in everything.items():
        with_torch = _WITH_TORCH.match(requirement)
        name = re.split(r"[=\s]", requirement)[0]
        files["torch" if with_torch else "base" if name in base else "tests"].append(block)
        if name == "torch":
            hashes = [f"--hash=sha256:{value}" for value in CPU_BUILDS.values()]
            files["torch-cpu"].append(" \\\n    ".join([f"{requirement}+cpu", *hashes]))
    for name, blocks in files.items():
        (ROOT / f"locks/{name}.txt").write_text(f"# Written by `make lock`.\n{chr(10).join(blocks)}\n")


if __name__ == "__main__":
    main(sys.argv[1])
