"""As a script, under the launcher: several runs one after the other, so that processes start once.

Arguments: a folder, and a JSON list of the options of each run. "resume_from" may be a pattern of files below the folder.
"""

import json
import sys
from datetime import timedelta
from pathlib import Path

import torch

from tests import tiny
from vlc.training.run import run


def main(folder: str, runs: str) -> None:
    torch.distributed.init_process_group("gloo", timeout=timedelta(seconds=60))
    for options in json.loads(runs):
        if "resume_from" in options:
            (found,) = Path(folder).glob(options["resume_from"])
            options["resume_from"] = str(found)
        run(tiny.settings("task_pretrain_emoji", log_dir=folder, **options))
        torch.distributed.barrier()
    torch.distributed.destroy_process_group()


if __name__ == "__main__":
    main(*sys.argv[1:])
