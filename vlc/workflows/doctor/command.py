"""The command: run the probes, print their findings, and say whether there is a problem."""

import json
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import asdict
from typing import Any

from vlc.common.errors import UserError, first_line
from vlc.common.files import write_atomically
from vlc.configuration.values import read
from vlc.workflows.doctor import checkpoints, data, machine, network, packages, storage, torch_process
from vlc.workflows.doctor.finding import PROBLEM, Asked, Finding, problem

try:
    from vlc.common.terminal import printable
except ImportError:  # rich is missing, and the command has to say so

    def printable(text: object) -> str:
        return ascii(text)[1:-1]


PROBES: dict[str, Callable[[Asked], Iterator[Finding]]] = {
    "packages": packages.probe,
    "processor": machine.probe_processor,
    "GPUs": machine.probe_gpus,
    "disks": storage.probe,
    "data": data.probe,
    "checkpoints": checkpoints.probe,
    "tokenizer": network.probe_tokenizer,
    "network": network.probe,
    "training": packages.probe_training,
}


def findings(subject: str, asked: Asked) -> Iterator[Finding]:
    """Yield what a probe finds. Its failure is a finding too, whatever it is: machines break in ways nobody foresees."""
    try:
        yield from PROBES[subject](asked)
    except UserError as error:
        yield problem(str(error))
    except Exception as error:
        yield problem(f"{subject} could not be looked at: {type(error).__name__}: {first_line(error)}")


def examine(asked: Asked, out: str | None = None) -> int:
    """Print the findings of all probes and return how many problems there are.

    out: file for the same as JSON.
    """
    for question in torch_process.QUESTIONS:  # they take seconds, and work while the first probes do
        torch_process.start(question)
    rows = []
    for subject in PROBES:
        print(subject)
        for finding in findings(subject, asked):
            print(printable(f"  {finding.level:<8}{finding.text}"), flush=True)
            if finding.cure:
                print(printable(f"          -> {finding.cure}"))
            rows.append({"subject": subject, **asdict(finding)})
    count = sum(row["level"] == PROBLEM for row in rows)
    if out:
        with write_atomically(out) as path:
            path.write_text(json.dumps({"problems": count, "findings": rows}, indent=1), encoding="utf-8")
    return count


def doctor(config: Mapping[str, Any], given: Collection[str]) -> None:
    """Run the command with the configuration of run.py and the keys that the user gave. Raises UserError for problems."""
    asked = Asked(
        load_path=config["load_path"],
        data_root=str(config["data_root"]),
        datasets=read(config["datasets"], tuple[str, ...]) if {"datasets", "tasks"} & set(given) else (),
        tokenizer=config["tokenizer"] if "tokenizer" in given else None,
        log_dir=config["log_dir"],
    )
    if count := examine(asked, config["out"]):
        raise UserError(f"{count} problem{'s are' if count > 1 else ' is'} to be mended: the lines behind -> say how")
