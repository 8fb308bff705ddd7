"""The options of `python -m write_arrow`: a command for each data set and for each tool."""

from argparse import ArgumentParser, RawDescriptionHelpFormatter

from write_arrow import check, clean, show
from write_arrow.machine.source import RawSource
from write_arrow.sources import SOURCES

TOOLS = {
    "check": ("check a folder of Arrow files against the catalogue", check),
    "clean": ("list the images that the data sets of a folder are evaluated on", clean),
    "show": ("print rows of an Arrow file and make a picture of its images", show),
}


def parser() -> ArgumentParser:
    """A parser whose `name` is the name of a data set in SOURCES or of a tool in TOOLS."""
    layouts = "\n".join(
        f"  {name}\n      {source.layout}" for name, source in SOURCES.items() if isinstance(source, RawSource)
    )
    whole = ArgumentParser(
        prog="python -m write_arrow",
        description="Write the Arrow files of a data set, check a folder of them, or look into one.",
        epilog=f"What --root holds:\n{layouts}\n\n`python -m write_arrow NAME --help` lists the options; see also DATA.md.",
        formatter_class=RawDescriptionHelpFormatter,
    )
    commands = whole.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, source in SOURCES.items():
        command = commands.add_parser(
            name, help=source.summary, description=source.description, formatter_class=RawDescriptionHelpFormatter
        )
        source.add_arguments(command)
    for name, (summary, module) in TOOLS.items():
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
    return whole
