"""What a probe is asked, and what it finds."""

from dataclasses import dataclass

OK, NOTE, PROBLEM = "ok", "note", "problem"


@dataclass(frozen=True)
class Asked:
    """The keys of the command.

    load_path: a checkpoint, or a folder with checkpoints; "": those below log_dir.
    data_root: the folder of the Arrow files; "": none is looked at.
    datasets: the data sets that have to be there.
    tokenizer: name or folder; None: the user has named none.
    log_dir: the folder that runs write to.
    """

    load_path: str = ""
    data_root: str = ""
    datasets: tuple[str, ...] = ()
    tokenizer: str | None = None
    log_dir: str = "result"


@dataclass(frozen=True)
class Finding:
    """One line.

    level: "ok", "note" (something is absent that not everybody needs) or "problem".
    cure: the command, or the sentence, that mends it; "" where there is nothing to mend, or the text says it.
    """

    level: str
    text: str
    cure: str = ""


def ok(text: str) -> Finding:
    return Finding(OK, text)


def note(text: str, cure: str = "") -> Finding:
    return Finding(NOTE, text, cure)


def problem(text: str, cure: str = "") -> Finding:
    return Finding(PROBLEM, text, cure)


def size(num_bytes: float) -> str:
    """A number of bytes as people read it: 1.5 GB."""
    for unit in ("bytes", "kB", "MB", "GB"):
        if num_bytes < 1000:
            return f"{num_bytes:.3g} {unit}"
        num_bytes /= 1000
    return f"{num_bytes:.3g} TB"
