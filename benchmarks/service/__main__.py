"""The command line of the measurements of the service."""

import argparse
import tempfile
from pathlib import Path

import benchmarks.service
from benchmarks.service import fuzz, load, memory, pictures, stop
from benchmarks.service.served import random_checkpoint

MEASUREMENTS = {"load": load, "stop": stop, "memory": memory, "pictures": pictures, "fuzz": fuzz}


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.service", description=benchmarks.service.__doc__)
    named = parser.add_subparsers(dest="measurement", required=True)
    for name, module in MEASUREMENTS.items():
        own = named.add_parser(name, help=module.__doc__, description=module.__doc__)
        own.add_argument("--checkpoint", type=Path, help="the model that is served")
        own.add_argument("--seed", type=int, default=0)
        own.add_argument("--json", type=Path)
        module.add_arguments(own)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        arguments.checkpoint = arguments.checkpoint or random_checkpoint(Path(folder))
        MEASUREMENTS[arguments.measurement].measure(arguments)


if __name__ == "__main__":
    main()
