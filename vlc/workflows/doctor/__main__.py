"""`python -m vlc.workflows.doctor [key=value ...]`: the same where run.py itself cannot start."""

import sys
from dataclasses import fields
from typing import Any

from vlc.workflows.doctor.command import examine
from vlc.workflows.doctor.finding import Asked

_KEYS = [field.name for field in fields(Asked) if field.name != "datasets"]


def main(words: list[str]) -> int:
    """Return the exit code: 0 without problems, 1 with problems, 2 for a key that does not exist."""
    given: dict[str, Any] = dict(word.partition("=")[::2] for word in words)
    out = given.pop("out", None)
    if unknown := set(given) - set(_KEYS):
        print(f"{unknown!a} is no key of this command: {', '.join(_KEYS)}, out", file=sys.stderr)
        return 2
    return 1 if examine(Asked(**given), out) else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
