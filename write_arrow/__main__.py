"""Write the Arrow files of a data set, check a folder of them, or look into one."""

import argparse
import json
import os
import sqlite3
import sys
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

import pyarrow as pa
from rich.console import Console
from rich.filesize import decimal
from rich.progress import BarColumn, MofNCompleteColumn, Progress, ProgressColumn, Task, TextColumn, TimeRemainingColumn
from rich.table import Column
from rich.text import Text

from vlc.common.errors import MissingFile, UserError
from vlc.common.terminal import cell, printable
from write_arrow import check, show
from write_arrow.machine.conversion import Conversion
from write_arrow.machine.storage import Folder
from write_arrow.machine.workers import num_cores, workers
from write_arrow.machine.writer import PlannedTable, Table, Written, write_tables
from write_arrow.sources import (
    captions,
    emoji,
    emoji_groups,
    emoji_nlvr2,
    emoji_scenes,
    imagenet,
    karpathy,
    nlvr2,
    pairs,
    snli_ve,
    text,
    vg,
    vgqa,
    vqav2,
)

MAX_WORKERS = 8  # by default


@dataclass(frozen=True)
class Source:
    """A data set that can be written.

    tables: a Conversion -> list of tables (of the embedded sets: the command's arguments -> list of tables).
    layout: what --root must hold; None: the set is embedded, or reads --root by itself.
    add_arguments: adds options of its own. shuffles: the rows are put into an order that --seed fixes ("asked": only
    where it is given). published: --compat gives the published converter's output.
    """

    summary: str
    tables: Callable
    layout: str | None = None
    add_arguments: Callable[[argparse.ArgumentParser], None] = lambda parser: None
    shuffles: bool | str = False
    published: bool = False


def _published(summary: str, tables: Callable, layout: str, **options) -> Source:
    return Source(summary, tables, layout, **({"shuffles": True, "published": True} | options))


def _pairs(summary: str, parts: tuple[pairs.Part, ...], layout: str) -> Source:
    return _published(summary, partial(pairs.tables, parts), layout)


SOURCES = {
    "coco": _published(
        "COCO captions, Karpathy's splits",
        karpathy.coco,
        "karpathy/dataset_coco.json, train2014/*.jpg, val2014/*.jpg",
    ),
    "f30k": _published(
        "Flickr30k captions, Karpathy's splits",
        karpathy.f30k,
        "karpathy/dataset_flickr30k.json, flickr30k-images/*.jpg",
    ),
    "vg": _published(
        "Visual Genome region descriptions",
        vg.tables,
        "annotations/region_descriptions.json, images/VG_100K/*.jpg, images/VG_100K_2/*.jpg",
    ),
    "sbu": _pairs("SBU captions", pairs.SBU, "annot.json, images_train/*/*"),
    "gcc": _pairs(
        "Conceptual Captions", pairs.GCC, "train_annot.json, val_annot.json, images_train/*/*, images_val/*/*"
    ),
    "vqav2": _published(
        "VQA v2",
        vqav2.tables,
        "v2_OpenEnded_mscoco_{train2014,val2014,test2015,test-dev2015}_questions.json, "
        "v2_mscoco_{train2014,val2014}_annotations.json, train2014/*.jpg, val2014/*.jpg, test2015/*.jpg",
    ),
    "vgqa": _published(
        "Visual Genome questions with answers of VQA v2; write vqav2 first",
        vgqa.tables,
        "question_answers.json, image_data.json, images/**/ID.jpg, and, where vqav2 is not in --out, "
        "coco_vqa_label_info.json or v2_mscoco_{train2014,val2014}_annotations.json",
        add_arguments=vgqa.add_arguments,
        shuffles=False,
    ),
    "nlvr2": _published(
        "NLVR2",
        nlvr2.tables,
        "nlvr2/data/{train,dev,test1}.json, nlvr2/data/{balanced,unbalanced}/*.json, images/train/*/*.png, dev/*.png, "
        "test1/*.png",
        shuffles=False,
    ),
    "snli_ve": Source(
        "SNLI-VE",
        snli_ve.tables,
        "snli_ve_{train,dev,test}.jsonl, flickr30k-images/*.jpg",
        shuffles=True,
    ),
    "openimages": _pairs("Open Images with narratives", pairs.OPENIMAGES, "oi_annt.json, images/train/*.jpg"),
    "pretrain_flickr30k": _pairs(
        "Flickr30k, as further captions", pairs.FLICKR30K, "flickr30k_annt.json, images/*.jpg"
    ),
    "pretrain_gqa": _pairs("GQA, as captions", pairs.GQA, "gqa_annt.json, images/*.jpg"),
    "pretrain_vg": _pairs("Visual Genome QA, as captions", pairs.VG, "vgqa_annt.json, images/*.jpg"),
    "pretrain_vqav2": _pairs("VQA v2, as captions", pairs.VQAV2, "vqa_annt.json, train2014/*.jpg, val2014/*.jpg"),
    "captions": Source(
        "captions of your own: a table of paths, a folder with text files, or WebDataset shards",
        captions.tables,
        "images named by --table FILE; or *.jpg with *.txt beside them; or *.tar",
        captions.add_arguments,
        shuffles="asked",
    ),
    "text": Source("text corpora, a line or paragraph a row", text.tables, "**/*.txt", text.add_arguments),
    "imagenet": Source(
        "ImageNet-1K, or images of your own in a folder for each class, as shards with labels",
        imagenet.tables,
        "train/CLASS/*, val/CLASS/*; or ILSVRC2012_img_train.tar, ILSVRC2012_img_val.tar",
        imagenet.add_arguments,
        shuffles="asked",
    ),
    "emoji": Source(
        "3,781 emoji with names and keywords in ten languages (embedded)",
        emoji.tables,
        add_arguments=emoji.add_arguments,
    ),
    "emoji_groups": Source(
        "the emoji with their nine groups as classes (embedded)",
        emoji_groups.tables,
        add_arguments=emoji_groups.add_arguments,
    ),
    "emoji_nlvr2": Source(
        "statements about two scenes of emoji (embedded, from a seed)",
        emoji_nlvr2.tables,
        add_arguments=emoji_nlvr2.add_arguments,
    ),
    "emoji_scenes": Source(
        "scenes of emoji with captions and questions (embedded, from a seed)",
        emoji_scenes.tables,
        add_arguments=emoji_scenes.add_arguments,
    ),
}
TOOLS = {
    "check": ("check a folder of Arrow files against the catalogue", check),
    "show": ("print rows of an Arrow file and make a picture of its images", show),
}


def main(words: list[str] | None = None) -> None:
    """words: the command line, by default that of the process. Raises UserError; `check` exits with 1 on a bad folder."""
    arguments = _parser().parse_args(words)
    if arguments.name in TOOLS:
        TOOLS[arguments.name][1].run(arguments)
    else:
        _write(arguments)


def _parser() -> argparse.ArgumentParser:
    layouts = "\n".join(f"  {name}\n      {source.layout}" for name, source in SOURCES.items() if source.layout)
    parser = argparse.ArgumentParser(
        prog="python -m write_arrow",
        description=__doc__,
        epilog=f"What --root holds:\n{layouts}\n\n`python -m write_arrow NAME --help` lists the options; see also DATA.md.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(dest="name", required=True, metavar="NAME")
    for name, source in SOURCES.items():
        _add_source(commands, name, source)
    for name, (summary, module) in TOOLS.items():
        command = commands.add_parser(name, help=summary, description=module.__doc__)
        module.add_arguments(command)
    return parser


def _add_source(commands, name: str, source: Source) -> None:
    module = sys.modules[getattr(source.tables, "func", source.tables).__module__]
    command = commands.add_parser(
        name,
        help=source.summary,
        description=module.__doc__,
        epilog=source.layout and f"--root holds: {source.layout}",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    if source.layout is not None:
        command.add_argument("--root", required=True, help="folder of the raw data, by path or URL; it is only read")
    command.add_argument("--out", required=True, help="folder for the arrow files, by path or URL")
    source.add_arguments(command)
    if source.layout is None:
        return
    command.add_argument(
        "--follow-links",
        action="store_true",
        help="follow symbolic links below --root (and .. in tables) that lead out of it",
    )
    command.add_argument("--limit", type=_positive, metavar="N", help="write the first N rows of each table, for a try")
    if source.shuffles:
        asked = source.shuffles == "asked"
        command.add_argument(
            "--seed",
            type=int,
            default=None if asked else 0,
            help="shuffle the rows by this seed" if asked else "of the rows' order (default: 0)",
        )
    if name == "text":
        return
    command.add_argument(
        "--no-verify", dest="verify", action="store_false", help="do not decode each image to check it"
    )
    if source.published:
        command.add_argument("--compat", action="store_true", help="the published converter's output, see DATA.md")
    command.add_argument(
        "--workers",
        type=_positive,
        metavar="N",
        default=min(MAX_WORKERS, num_cores()),
        help="processes that read and check images; the files do not depend on it (default here: %(default)s)",
    )
    command.add_argument(
        "--ray",
        metavar="ADDRESS",
        help="read and check images on this Ray cluster; local: on a Ray of --workers processes here",
    )


def _positive(word: str) -> int:
    number = int(word)
    if number < 1:
        raise argparse.ArgumentTypeError("should be 1 or more")
    return number


def _write(arguments: argparse.Namespace) -> None:
    source, out = SOURCES[arguments.name], Folder(arguments.out)
    _require_writable(out)
    console = Console(highlight=False, soft_wrap=True)
    if source.layout is None:
        _write_all(source.tables(arguments), out, arguments, None, console)
        return
    try:
        try:
            root = Folder(arguments.root, follow_links=arguments.follow_links).require()
            conversion = Conversion(root, out, arguments)
            with console.status(f"{arguments.name}: reading annotations"):
                tables = source.tables(conversion)
        except MissingFile as error:
            raise MissingFile(f"{error}. --root should hold: {source.layout}") from error
        for note in conversion.notes:
            console.print(cell(note))
        _write_all(tables, out, arguments, root, console)
    except sqlite3.OperationalError as error:
        raise UserError(f"Row plans cannot be kept ({error}): point TMPDIR to a folder with more space") from error


def _require_writable(out: Folder) -> None:
    """Raise UserError, before anything is read, where a local folder cannot be written to, nor made."""
    place = os.path.abspath(out.path)
    while out.is_local and not os.path.lexists(place):
        place = os.path.dirname(place)
    if out.is_local and not os.path.isdir(place):
        raise UserError(f"--out {out}: {place} is a file, and no folder")
    if out.is_local and not os.access(place, os.W_OK | os.X_OK):
        raise UserError(f"--out {out}: {place} cannot be written to: choose another folder, or change its permissions")


def _write_all(
    tables: list[Table | PlannedTable],
    out: Folder,
    arguments: argparse.Namespace,
    root: Folder | None,
    console: Console,
) -> None:
    columns = (
        TextColumn("{task.description}", markup=False),
        BarColumn(20),
        MofNCompleteColumn(),
        _Rate(),
        TimeRemainingColumn(),
    )
    crew = workers(getattr(arguments, "workers", 1), getattr(arguments, "ray", None))
    with crew as crew, Progress(*columns, console=console) as progress:
        tasks = {
            table.stem: progress.add_task(
                printable(table.stem),
                total=table.num_rows,
                start=False,
                size=0,
                images=sum(pa.types.is_binary(field.type) for field in table.schema),
            )
            for table in tables
        }

        def advance(table: Table | PlannedTable, rows: int, size: int) -> None:
            task = progress.tasks[tasks[table.stem]]
            progress.start_task(task.id)
            progress.update(task.id, advance=rows, size=task.fields["size"] + size)

        verify = getattr(arguments, "verify", True)
        given = {name: value for name, value in vars(arguments).items() if name not in ("out", "workers", "ray")}
        made_from = json.dumps(given, sort_keys=True, default=str)
        written = list(
            write_tables(tables, out, root=root, crew=crew, verify=verify, made_from=made_from, advance=advance)
        )
    for file in written:
        console.print(cell(_told(file, out)))


def _told(file: Written, out: Folder) -> str:
    stem = os.path.splitext(file.name)[0]
    rejected = f", {file.num_rejected:,} left out: {stem}.rejected.jsonl" if file.num_rejected else ""
    kept = ", kept from the interrupted run" if file.kept else ""
    return f"{out.where(file.name)}  {file.num_rows:,} rows, {decimal(file.size)}{rejected}{kept}"


class _Rate(ProgressColumn):
    """Images (rows, where there are none) and megabytes a second since the table was begun."""

    def __init__(self):
        super().__init__(table_column=Column(no_wrap=True))

    def render(self, task: Task) -> Text:
        if not task.elapsed or not task.completed:
            return Text("")
        images, size = task.fields["images"], task.fields["size"]
        rate = task.completed * max(images, 1) / task.elapsed
        return Text(f"{rate:,.0f} {'images' if images else 'rows'}/s {size / task.elapsed / 1e6:,.1f} MB/s")


def command_line() -> int:
    """As `main`, with mistakes that a user can mend as a message and exit status 2."""
    try:
        main()
    except UserError as error:
        print(f"write_arrow: {printable(error)}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("write_arrow: interrupted; the same command goes on or starts again", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(command_line())
