"""The pages: their commands can be parsed, their tables are what the code says, their links lead somewhere."""

import argparse
import importlib
import json
import re
import shlex
import sys
from collections.abc import Iterator
from dataclasses import fields
from pathlib import Path

import pytest
from PIL import Image
from sacred.arg_parser import get_config_updates

import launch
import main_finetune
import run
from docs import pictures, tables
from docs.tables import PAGES, ROOT, written
from tests.test_rooms import ROOMS
from vlc.configuration.config import resolve, resolve_use
from vlc.configuration.groups import NESTED
from vlc.configuration.settings import Settings
from vlc.configuration.use_settings import COMMANDS, USE_KEYS, UseSettings, without_use_keys
from write_arrow.machine.source import RawSource
from write_arrow.sources import SOURCES

TEXTS = {str(path.relative_to(ROOT)): path.read_text(encoding="utf-8") for path in PAGES}
TELEGRAMS = (
    *("that of", "those of", "of which", "what of", "what stands", "is told", "are told", "tells of", "speaks with"),
    *("stand behind", "stands behind"),
)
_BLOCK = re.compile(r"^```[^\n]*\n(.*?)^```", re.DOTALL | re.MULTILINE)


def commands(text: str) -> Iterator[list[str]]:
    """The commands of a page that start with python or make, in blocks and inside sentences, without their comments.

    A sentence may name a program without arguments (`python -m launch`); that is not a command.
    """
    blocks = "\n".join(_BLOCK.findall(text)).replace("\\\n", " ").splitlines()
    spans = re.findall(r"`([^`\n]+)`", _BLOCK.sub("", text))
    for line in [*blocks, *spans]:
        if not re.match(r"(\$ )?(python|make) ", line):
            continue
        words = ["coco" if word == "NAME" else word for word in shlex.split(line.removeprefix("$ "), comments=True)]
        named = line in spans and words[0] == "python" and len(words) <= (3 if words[1] == "-m" else 2)
        if not named and not {"...", "--help"} & set(words):
            yield words


ALL = [
    pytest.param(words, id=f"{page}: {shlex.join(words)[:90]}")
    for page, text in TEXTS.items()
    if page != "docs/your_own_task.md"  # whose commands are run, by test_your_own_task.py
    for words in commands(text)
]


class _Parsed(Exception):
    pass


@pytest.fixture
def parse(monkeypatch):
    """A function that gives a program its command line, and returns what its argparse parser makes of it."""
    parse_args = argparse.ArgumentParser.parse_args

    def stop(self, args=None, namespace=None):
        raise _Parsed(parse_args(self, args, namespace))

    def parse(module, words: list[str]) -> argparse.Namespace:
        monkeypatch.setattr(sys, "argv", [module.__name__, *words])
        with pytest.raises(_Parsed) as stopped:
            module.main()
        return stopped.value.args[0]

    monkeypatch.setattr(argparse.ArgumentParser, "parse_args", stop)
    return parse


def check_run(words: list[str]) -> None:
    """Words behind run.py: [COMMAND] with NAMED_CONFIG ... key=value ..."""
    assert "with" in words, words
    place = words.index("with")
    command = words[0] if place else "main"
    assert command in {name for name, _ in run.ex.gather_commands()}
    updates, named = get_config_updates(words[place + 1 :])
    if command in (*COMMANDS, "print_config"):
        updates = {"per_gpu_batchsize": 2} | updates  # a training run has to state it, these do not
    if command in COMMANDS:
        config, _ = resolve_use(*named, **updates)
        assert UseSettings.from_config(config)
        assert config["load_path"] or config["published_pool"] or config["run"]
        Settings.from_config(without_use_keys(config))
    else:
        Settings.from_config(resolve(*named, **updates))


def check_program(words: list[str], parse) -> None:
    """A script and its words."""
    if words[0] == "run.py":
        check_run(words[1:])
    else:
        if words[0].endswith("answer.py"):  # which stands beside exported heads
            return
        assert words[0] == "main_finetune.py", words
        arguments = parse(main_finetune, words[1:])
        for name in ("resume", "finetune"):
            path = Path(getattr(arguments, name) or "none")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.touch()
        main_finetune.check(arguments)


@pytest.mark.parametrize("words", ALL)
def test_a_command_can_be_parsed(words, parse, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    if words[0] == "make":
        targets = re.findall(r"^([\w-]+):", (ROOT / "Makefile").read_text(), re.MULTILINE)
        assert set(words[1:2]) <= set(targets)
        return
    if words[1] != "-m":
        return check_program(words[1:], parse)
    name = words[2]
    folder = ROOT.joinpath(*name.split("."))
    module = importlib.import_module(f"{name}.__main__" if folder.is_dir() else name)
    arguments = parse(module, words[3:])
    if module is launch:
        check_program([arguments.training_script, *arguments.training_script_args], parse)
    elif name == "benchmarks.two_stage":
        check_run(["with", *arguments.words])


def test_commands_are_found():
    text = (
        "```\n$ python a.py \\\n    with b  # comment\nls\n```\nAnd `python -m c d`, `make demo`, `python -m c ...`.\n"
    )
    assert list(commands(text)) == [["python", "a.py", "with", "b"], ["python", "-m", "c", "d"], ["make", "demo"]]
    assert len(ALL) > 60


@pytest.mark.parametrize("page", TEXTS)
def test_modules_that_a_page_names_exist(page):
    for name in re.findall(r"python -m ([\w.]+)", TEXTS[page]):
        assert importlib.util.find_spec(name), name


@pytest.mark.parametrize("page", TEXTS)
def test_tables_are_what_the_code_says(page):
    assert TEXTS[page] == written(TEXTS[page]), "python -m docs.tables writes them"


def test_every_table_is_on_a_page():
    found = {name for text in TEXTS.values() for name in re.findall(r"<!-- table: (\w+) -->", text)}
    assert found == set(tables.TABLES)
    for text in TEXTS.values():
        assert len(re.findall(r"<!-- table: \w+ -->", text)) == text.count("<!-- end -->\n")


def test_an_outdated_table_is_written_anew():
    stale = "before\n<!-- table: encoders -->\n| old |\n<!-- end -->\nafter\n"
    page = written(stale)
    assert "| old |" not in page
    assert "`mae_vit_base_patch16` | 768 |" in page
    assert page.startswith("before\n<!-- table: encoders -->\n| ")
    assert written(page) == page


def test_every_key_has_a_row():
    rows = re.findall(r"^\| `(\w+)` \| ", tables.config_keys(), re.MULTILINE)
    assert sorted(rows) == sorted(set(resolve()) - set(NESTED))
    nested = re.findall(r"^\| `(\w+)\.(\w+)` \| ", tables.nested_keys(), re.MULTILINE)
    assert nested == [(name, field.name) for name, group in NESTED.items() for field in fields(group)]
    assert re.findall(r"^\| `(\w+)` \| ", tables.use_keys(), re.MULTILINE) == list(USE_KEYS)


def _rows(page: str, title: str) -> list[list[str]]:
    """Cells of the table whose header starts with `title`."""
    _, _, rest = TEXTS[page].partition(f"\n| {title} |")
    lines = rest.split("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_tables_that_are_written_by_hand_name_what_there_is():
    raw = {
        name
        for name, source in SOURCES.items()
        if isinstance(source, RawSource) and name not in ("captions", "table", "text")
    }
    assert {row[0] for row in _rows("DATA.md", "NAME | where to get the raw data")} == raw
    assert {row[0].strip("`") for row in _rows("CONTRIBUTING.md", "room")} == {f"vlc/{room}" for room in ROOMS}
    pages = {path for path in TEXTS if path not in ("README.md", "docs/README.md")}
    for index in ("README.md", "docs/README.md"):
        linked = {
            (ROOT / index).parent / target for target in re.findall(r"^\| \[.*?\]\((.*?)\)", TEXTS[index], re.MULTILINE)
        }
        assert {str(path.resolve().relative_to(ROOT)) for path in linked} == pages


def test_the_targets_of_speed_are_met_by_the_tables_below():
    printed = re.findall(r"│ ours +│.*│ ([\d.]+) +│ ([\d.]+) +│$", TEXTS["BENCHMARKS.md"], re.MULTILINE)
    faster, memory = ({float(row[column]) for row in printed} for column in (0, 1))
    for row in _rows("BENCHMARKS.md", "figure"):
        known = memory if row[0].startswith("peak memory") else faster
        assert {float(row[2]), float(row[5])} <= known, row


def slug(heading: str) -> str:
    """The anchor that GitHub gives to a heading."""
    return re.sub(r"[^\w\- ]", "", heading.strip().lower()).replace(" ", "-")


@pytest.mark.parametrize("page", TEXTS)
def test_links_lead_to_files_and_headings(page):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[page]):
        if target.startswith("https://"):
            continue
        name, _, anchor = target.partition("#")
        path = ((ROOT / page).parent / name).resolve() if name else ROOT / page
        assert path.exists(), target
        if anchor:
            headings = re.findall(r"^#+ (.+)$", _BLOCK.sub("", path.read_text(encoding="utf-8")), re.MULTILINE)
            assert anchor in {slug(heading) for heading in headings}, target


@pytest.mark.parametrize("page", TEXTS)
def test_paths_of_the_repository_exist(page):
    for name in re.findall(r"`((?:vlc|write_arrow|benchmarks|demo|docs|tests|scripts)/[\w./-]*)`", TEXTS[page]):
        assert (ROOT / name).exists(), name


def test_the_readme_is_short_and_shows_a_picture():
    assert len(TEXTS["README.md"].splitlines()) <= 150
    (picture,) = re.findall(r"!\[[^\]]+\]\((.+?)\)", TEXTS["README.md"])
    assert (ROOT / picture).stat().st_size < 150_000


@pytest.mark.parametrize("path", [*TEXTS, "docs/tables.py", "docs/pictures.py"])
def test_no_telegrams(path):
    text = re.sub(r"<!-- table.*?<!-- end -->", "", (ROOT / path).read_text(encoding="utf-8"), flags=re.DOTALL)
    text = " ".join(text.split())  # without the words that the code provides, and without line breaks
    assert not [words for words in TELEGRAMS if re.search(rf"\b{words}\b", text)]


def test_picture_and_figures_come_from_a_demonstration(tmp_path):
    from vlc.use.report.page import Page, render
    from vlc.use.report.section import Section

    image = Image.new("RGB", (64, 64))
    answers = {"right": False, "answer": "no", "choices": [("no", 0.9), ("2 < 3", 0.1)]}
    rest = {"pictures": [image], "others": [], "maps": [], "words": []}
    question = {"kind": "exists", "text": "is there a dog", "truth": "yes"} | answers | rest
    other = question | {"kind": "count", "truth": "no", "right": True}
    first = Section("", "first", {"heads": [{"title": "", "cards": [question, question, other]}]})
    triples = Section("", "reconstructions", {"triples": [[image] * 3] * 5})
    page = render(Page("", "", []), [("", [first, triples])], [], side=128)
    (tmp_path / "report.html").write_text(page)
    (tmp_path / "table.json").write_text(json.dumps([]))
    shown = {kind: [one[1:] for one in asked] for kind, asked in pictures.questions(page).items()}
    wrong, right = ("is there a dog", "no", "yes"), ("is there a dog", "no", None)
    assert shown == {"exists": [wrong, wrong], "count": [right]}
    assert [len(images) for images in pictures.triples(page)] == [3] * 5
    pictures.main(["--demo", str(tmp_path), "--out", str(tmp_path / "docs")])
    assert Image.open(tmp_path / "docs/pictures/demo.png").width > 300
    assert (tmp_path / "docs/demo.json").read_text() == "[]"
