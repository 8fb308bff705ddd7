"""Train a tokenizer, or show one at work: `python -m vlc.tokenizer train ARROWS --size N --out FOLDER`."""

import argparse
from collections.abc import Sequence
from pathlib import Path

from rich.console import Console
from rich.table import Table

from vlc.common.errors import UserError
from vlc.common.files import check_room
from vlc.common.terminal import cell, printable
from vlc.data.tokens import load_tokenizer
from vlc.tokenizer.statistics import measure
from vlc.tokenizer.texts import TEXT_COLUMNS, Texts
from vlc.tokenizer.training import KINDS, train


def main(words: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m vlc.tokenizer", description="Train a tokenizer, or show one.")
    commands = parser.add_subparsers(required=True)
    training = commands.add_parser("train", help="train one on the texts in the arrow files of a folder")
    training.add_argument("arrows", type=Path, help="folder of arrow files")
    training.add_argument("--size", type=int, required=True, help="pieces, special tokens included")
    training.add_argument("--kind", choices=KINDS, default="wordpiece", help="like BERT's, XLM-R's or RoBERTa's")
    training.add_argument("--lowercase", action="store_true", help="make capital letters small; accents stay")
    training.add_argument("--columns", nargs="+", help="columns of texts; default: all that the catalogue knows")
    training.add_argument("--out", type=Path, required=True, help="folder to write, for tokenizer=FOLDER")
    training.set_defaults(run=_train)
    showing = commands.add_parser("show", help="show how a tokenizer cuts texts")
    showing.add_argument("tokenizer", help="hub name, folder, or emoji")
    showing.add_argument("texts", nargs="+", metavar="text")
    showing.set_defaults(run=_show)
    arguments = parser.parse_args(words)
    try:
        arguments.run(arguments)
    except UserError as error:
        parser.exit(2, f"{printable(error)}\n")


def _train(arguments: argparse.Namespace) -> None:
    if not arguments.arrows.is_dir():
        raise UserError(f"{arguments.arrows} is not a folder: name the one with the arrow files")
    if arguments.out.exists() and (not arguments.out.is_dir() or any(arguments.out.iterdir())):
        raise UserError(f"--out {arguments.out} exists and is no empty folder: name a new one")
    texts = Texts(arguments.arrows, arguments.columns or TEXT_COLUMNS)
    titles = iter(("Reading words", "Training"))
    tokenizer = train(arguments.kind, lambda: texts.all(next(titles)), arguments.size, lowercase=arguments.lowercase)
    check_room("--out ", arguments.out)
    tokenizer.save_pretrained(arguments.out)
    total, languages = measure(tokenizer, texts.by_language("Measuring"))
    table = Table("language", "texts", "words", "pieces a word", "unknown characters", box=None)
    named = sorted(languages.items()) if set(languages) != {""} else []
    for name, found in [*named, ("all", total)]:
        counts = f"{found.texts:,}", f"{found.words:,}", f"{found.pieces_per_word:.2f}", f"{found.unknown_share:.3%}"
        table.add_row(cell(name or "not named"), *counts)
    Console().print(table)
    print(printable(f"Wrote {arguments.out} ({arguments.kind}, {len(tokenizer):,} pieces): tokenizer={arguments.out}"))


def _show(arguments: argparse.Namespace) -> None:
    tokenizer = load_tokenizer(arguments.tokenizer)
    for text in arguments.texts:
        encoding = tokenizer.backend_tokenizer.encode(text)
        table = Table("id", "piece", "word", "text", title=cell(text), title_justify="left", box=None)
        for number, piece, word, (start, end) in zip(
            encoding.ids, encoding.tokens, encoding.word_ids, encoding.offsets, strict=True
        ):
            table.add_row(str(number), cell(piece), "" if word is None else str(word + 1), cell(text[start:end]))
        Console().print(table)


if __name__ == "__main__":
    main()
