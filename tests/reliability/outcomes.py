"""The words for what becomes of a try, and the table of them."""

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass

from rich.table import Column, Table
from rich.text import Text

# In the order of the table's columns; the later ones are faults.
OUTCOMES = {
    "clear": "it ended with a message that names the file or the key, and without a traceback",
    "same": "nothing was lost: the same values were read, the same weights came out, the input was handled safely",
    "silent": "other values came out without a word",
    "raw": "a traceback, an exception of a library, or an ending without a message that names the cause",
    "crash": "a signal ended the process, or it took more memory than it may",
    "hang": "it was not done within the time limit, or left processes behind",
    "code run": "code, a program or a network address that came with the input was used",
}


@dataclass(frozen=True)
class Try:
    """part: kills, damage, hostile or tests. kind: the row of the table. name: what was done. seed: repeats it.

    checked: a checksum, or the program itself, can know that something is wrong, so that `silent` is a fault.
    """

    part: str
    kind: str
    name: str
    outcome: str
    detail: str = ""
    checked: bool = True
    seconds: float = 0.0

    def __post_init__(self):
        assert self.outcome in OUTCOMES, self.outcome

    @property
    def is_fault(self) -> bool:
        return self.outcome not in ("clear", "same", "silent") or (self.outcome == "silent" and self.checked)


@dataclass(frozen=True)
class Row:
    """The tries of one kind, counted by outcome."""

    part: str
    kind: str
    checked: bool
    counts: Counter

    @property
    def num_tries(self) -> int:
        return self.counts.total()


def rows(tries: Iterable[Try]) -> list[Row]:
    """A row for each kind, in the order in which the kinds come first."""
    made: dict[tuple[str, str, bool], Counter] = {}
    for one in tries:
        made.setdefault((one.part, one.kind, one.checked), Counter())[one.outcome] += 1
    return [Row(*key, counts) for key, counts in made.items()]


_NOTE = "without checksums"  # beside kinds whose files have none


def table(tries: list[Try]) -> Table:
    """The table for the terminal; faults are red."""
    made = Table("part", "kind", *(Column(name, justify="right") for name in ("tries", *OUTCOMES)), box=None)
    for row in rows(tries):
        cells = []
        for outcome in OUTCOMES:
            count = row.counts[outcome]
            wrong = count and Try(row.part, row.kind, "", outcome, checked=row.checked).is_fault
            cells.append(Text(str(count) if count else "-", style="bold red" if wrong else ""))
        kind = row.kind if row.checked else f"{row.kind} ({_NOTE})"
        made.add_row(row.part, Text(kind), str(row.num_tries), *cells)
    made.add_section()
    for checked in (True, False):
        chosen = [one for one in tries if one.checked == checked]
        if chosen:
            total = Counter(one.outcome for one in chosen)
            name = "all" if checked else f"all {_NOTE}"
            made.add_row("", name, str(len(chosen)), *(str(total[outcome]) for outcome in OUTCOMES))
    return made


def markdown(tries: list[Try]) -> str:
    """The same table, to be pasted into docs/reliability.md."""
    lines = [f"| part | kind | tries | {' | '.join(OUTCOMES)} |", "|---|---|" + "--:|" * (1 + len(OUTCOMES))]
    for row in rows(tries):
        kind = row.kind if row.checked else f"{row.kind} ({_NOTE})"
        counts = " | ".join(str(row.counts[outcome] or "-") for outcome in OUTCOMES)
        lines.append(f"| {row.part} | {kind} | {row.num_tries} | {counts} |")
    return "\n".join(lines) + "\n"
