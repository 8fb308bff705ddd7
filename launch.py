"""Start a script in several processes, on one host or many: `python -m launch --nproc_per_node 8 SCRIPT ARGUMENTS`.

Takes the flags of torch.distributed.run, to which it forwards, and those of the older torch.distributed.launch that
published commands use: `--use_env`, which is the only way now and needs no flag, and underscores in names.
"""

import sys

from torch.distributed.run import get_args_parser, run


def main(words: list[str] | None = None) -> None:
    parser = get_args_parser()
    parser.prog = "python -m launch"
    parser.add_argument(
        "--use_env", "--use-env", action="store_true", default=True, help="always so; for older commands"
    )
    run(parser.parse_args(words))


if __name__ == "__main__":
    sys.exit(main())
