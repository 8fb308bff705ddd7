"""Foreign text on its way to a terminal: captions, answers, names of files and columns, keys of foreign files.

Such text may hold escape sequences, line breaks, and characters that reverse the order of the characters behind them.
None of these may reach the terminal, and rich must not read markup in the text.
"""

import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.text import Text

_DANGEROUS = re.compile(
    "["
    "\x00-\x1f\x7f-\x9f"  # control characters, ESC and line breaks among them
    "\u2028\u2029"  # further line breaks
    "\u200e\u200f\u061c\u202a-\u202e\u2066-\u2069"  # bidirectional marks, embeddings, overrides and isolates
    "\ud800-\udfff"  # bytes of file names that are not UTF-8: to print them is an error
    "\ufeff\ufff9-\ufffb"  # byte order mark, annotations
    "]"
)


def printable(text: object) -> str:
    r"""Return the text on a single line, with control characters and bidirectional marks as escapes (\x1b, \n, \u202e)."""
    return _DANGEROUS.sub(lambda found: found[0].encode("unicode_escape").decode("ascii"), str(text))


def cell(text: object, style: str = "") -> Text:
    """Return the printable text for rich's tables and consoles, which then read no markup in it."""
    return Text(printable(text), style)


@contextmanager
def progress(title: str, total: int | None, *, shown: bool = True) -> Iterator[Callable[[int], None]]:
    """Show a progress bar while the block runs; yields the function that counts further items.

    total: the number of items; None: nobody knows.
    """
    columns = TextColumn(title), BarColumn(), MofNCompleteColumn(), TimeRemainingColumn()
    with Progress(*columns, disable=not shown) as bar:
        task = bar.add_task(title, total=total)
        yield lambda count: bar.advance(task, count)
