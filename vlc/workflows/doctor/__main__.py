"""`python -m vlc.workflows.doctor [--data_root ARROWS] ...`: the same where run.py itself cannot start."""

import argparse

from vlc.workflows.doctor.command import examine
from vlc.workflows.doctor.finding import Asked


def main() -> None:
    """Exit with 1 where there are problems."""
    parser = argparse.ArgumentParser(prog="python -m vlc.workflows.doctor", description="Look at the machine.")
    parser.add_argument("--load_path", default="", help="checkpoint, or folder with checkpoints")
    parser.add_argument("--data_root", default="", help="folder of the Arrow files")
    parser.add_argument("--tokenizer", help="name or folder")
    parser.add_argument("--log_dir", default="result", help="folder that runs write to")
    parser.add_argument("--out", help="file for the findings as JSON")
    given = vars(parser.parse_args())
    out = given.pop("out")
    parser.exit(1 if examine(Asked(**given), out) else 0)


if __name__ == "__main__":
    main()
