"""Kills, damaged files and hostile inputs, and a table of what became of them: `python -m tests.reliability`.

Takes half an hour on two cores. Writes result/reliability.json with every try, and result/reliability.md with the table.
Exits with 1 if anything crashed, hung, showed a traceback or ran code, if other values came out of a kill, or if damage was
not noticed where a checksum can know.
"""

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import asdict
from importlib.metadata import version
from pathlib import Path
from xml.etree import ElementTree

from rich.console import Console

from tests.reliability import damage, hostile, kills
from tests.reliability.isolated import REPOSITORY, start_server
from tests.reliability.outcomes import OUTCOMES, Try, markdown, table

_TEST_SECONDS = 1800  # that the tests of this folder may take


def main(words: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.reliability", description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="these parts (default: all)")
    parser.add_argument("--seed", type=int, default=0, help="of moments and places (default: 0)")
    parser.add_argument("--scale", type=float, default=1.0, help="share of the tries, for a look (default: 1)")
    parser.add_argument("--out", type=Path, default=Path("result"), help="folder of the report (default: result)")
    arguments = parser.parse_args(words)
    start_server()
    console, began, tries = Console(highlight=False, soft_wrap=True), time.perf_counter(), []
    with tempfile.TemporaryDirectory(prefix="reliability_") as folder:
        for part in arguments.only:
            since, before = time.perf_counter(), len(tries)
            for one in PARTS[part](Path(folder, part), arguments.seed, arguments.scale):
                tries.append(one)
                if one.is_fault:  # what foreign files made a program say may be anything
                    detail = repr(one.detail[-300:])
                    console.print(f"{one.outcome}: {one.kind}: {one.name!a}: {detail}", style="red", markup=False)
            console.print(f"{part}: {len(tries) - before} tries in {time.perf_counter() - since:.0f} s")
    _write(arguments, tries, time.perf_counter() - began)
    console = Console(highlight=False, width=max(console.width, 150))
    console.print(table(tries))
    for outcome, meaning in OUTCOMES.items():
        console.print(f"{outcome:>9}  {meaning}", style="dim")
    faults = sum(one.is_fault for one in tries)
    console.print(f"{len(tries)} tries, {faults} faults, {time.perf_counter() - began:.0f} s")
    console.print(f"{arguments.out}: reliability.json has every try, reliability.md the table in Markdown")
    return 1 if faults or not tries else 0


def _write(arguments: argparse.Namespace, tries: list[Try], seconds: float) -> None:
    arguments.out.mkdir(parents=True, exist_ok=True)
    names = ("torch", "pytorch-lightning", "pyarrow", "pillow", "safetensors", "faiss-cpu", "transformers")
    machine = {"system": platform.platform(), "python": platform.python_version(), "cores": os.cpu_count()}
    machine |= {name: version(name) for name in names}
    report = {"seed": arguments.seed, "scale": arguments.scale, "seconds": round(seconds), "machine": machine}
    report["tries"] = [asdict(one) | {"fault": one.is_fault} for one in tries]
    (arguments.out / "reliability.json").write_text(json.dumps(report, indent=1))
    (arguments.out / "reliability.md").write_text(markdown(tries))


def _tests(folder: Path, seed: int, scale: float) -> Iterator[Try]:
    """The pytest files of this folder, which `make test` leaves out."""
    files = sorted(Path(__file__).parent.glob("test_*.py"))
    if not files:
        return
    folder.mkdir(parents=True)
    report, began = folder / "report.xml", time.perf_counter()
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--numprocesses",
        "2",
        "--dist",
        "worksteal",
    ]
    try:
        done = subprocess.run([*command, f"--junitxml={report}", *map(str, files)], cwd=REPOSITORY, capture_output=True,
                              text=True, timeout=_TEST_SECONDS, stdin=subprocess.DEVNULL)  # fmt: skip
    except subprocess.TimeoutExpired:
        yield Try("tests", "pytest tests/reliability", "all", "hang", f"after {_TEST_SECONDS} s")
        return
    cases = list(ElementTree.parse(report).iter("testcase")) if report.is_file() else []
    if done.returncode not in (0, 1) or not cases:
        yield Try("tests", "pytest tests/reliability", "all", "raw", (done.stdout + done.stderr)[-600:],
                  seconds=time.perf_counter() - began)  # fmt: skip
    for case in cases:
        wrong = next((found for found in case if found.tag in ("failure", "error")), None)
        if case.find("skipped") is None:
            name = case.get("classname", "").rpartition(".")[2]
            detail = "" if wrong is None else (wrong.get("message") or wrong.text or "")[:600]
            outcome = "same" if wrong is None else "silent"
            yield Try("tests", f"{name}.py", case.get("name", ""), outcome, detail, seconds=float(case.get("time", 0)))


PARTS = {"kills": kills.tries, "damage": damage.tries, "hostile": hostile.tries, "tests": _tests}

if __name__ == "__main__":
    sys.exit(main())
