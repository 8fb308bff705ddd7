"""A program of the suite whose training steps are told in a file: `announced.py run.py with ...`, for the launcher."""

import sys

import tests.reliability.imports  # noqa: F401
from tests.reliability.isolated import program
from tests.reliability.kills import announce_steps

if __name__ == "__main__":
    announce_steps()
    program(sys.argv[1:])
