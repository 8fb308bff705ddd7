"""The rows of TASKS, and that no other place of the package knows a task by its name."""

import io
import re
import subprocess
import sys
import tokenize
from pathlib import Path

import pytest

import vlc
from vlc.configuration.recipes import RECIPES
from vlc.configuration.settings import config_keys
from vlc.data.catalog import CATALOG
from vlc.data.parts import columns_of
from vlc.data.transforms import TRANSFORMS
from vlc.objectives.kinds import KINDS
from vlc.objectives.options import OPTIONS
from vlc.tasks import HEADS, TASKS
from vlc.tasks.questions import server_file
from vlc.tasks.task import Task

# Where tasks are named: their rows and heads, the data, the named configs, the flat keys and other projects' names.
AT_HOME = (
    "tasks/",
    "objectives/",
    "data/catalog.py",
    "evaluation/official/",
    "configuration/recipes.py",
    "configuration/aliases.py",
    "checkpoint/formats.py",
)
NAMES = sorted({*TASKS, *(name for name in HEADS if name not in KINDS)})


@pytest.mark.parametrize("name", TASKS)
def test_a_row_names_what_exists(name):
    task = TASKS[name]
    assert set(task.objectives) <= set(KINDS)
    assert set(task.heads) | set(task.options) <= set(task.objectives)
    assert set(task.datasets) <= set(CATALOG)
    assert set(task.transforms) <= set(TRANSFORMS)
    options = {kind: OPTIONS[kind](**task.options.get(kind, {})) for kind in task.objectives}
    for kind, own in options.items():
        columns = columns_of(KINDS[kind].parts(own), "always", "labelled")
        for dataset in task.datasets:
            assert columns <= set(CATALOG[dataset].fields)
            num_images = len(CATALOG[dataset].images)
            assert KINDS[kind].num_images(own) in (0, num_images) or not (num_images or KINDS[kind].needs_images)


def test_names_mean_one_thing():
    assert not set(TASKS) & set(config_keys()), "a task is a dictionary beside the keys"
    published = {"mlm", "mae", "itm", "itc", "classes"}  # the last is in checkpoints of main_finetune.py
    assert not set(HEADS) & set(KINDS) - published, "a head of several tasks has a name of its own"


def test_published_names_mean_one_task():
    names = [other for task in TASKS.values() for other in task.published]
    assert len(set(names)) == len(names)
    assert not set(names) & set(TASKS)
    numbers = {int(other): name for name, task in TASKS.items() for other in task.published if other.isdecimal()}
    assert sorted(numbers) == list(range(1, 19)), "the numbers of 12-in-1's file of tasks"
    assert [numbers[number] for number in (1, 2, 4, 7, 8, 9, 10, 11, 12, 13, 15, 17)] == RECIPES["task_12in1"]["tasks"]


def test_tasks_that_share_a_head_agree_in_its_kind():
    for task in TASKS.values():
        for kind in task.objectives:
            assert HEADS[task.head(kind)].kind == kind


def test_without_a_report_all_records_are_written():
    assert Task({"answers": 1}, ("vqa",)).report.submission([{"a": "é"}]) == ("json", '[\n {\n  "a": "é"\n }\n]')
    assert Task({"answers": 1}, ("vqa",)).report.summary([{"a": 1}]) == {}
    assert "score" not in server_file([{"question_id": 1, "answer": "a", "score": 1.0}])[1]


def _named_tasks(source: str) -> list[str]:
    """The tasks that code names, in identifiers and in texts that are no docstrings."""
    found, at_start = [], True
    for token in tokenize.generate_tokens(io.StringIO(source).readline):
        if token.type in (tokenize.NAME, tokenize.STRING) and not (token.type == tokenize.STRING and at_start):
            found += [name for name in NAMES if re.search(rf"(?<![a-z0-9_]){name}(?![a-z0-9_])", token.string)]
        if token.type not in (tokenize.NL, tokenize.COMMENT):
            at_start = token.type in (tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENCODING)
    return found


def test_names_are_found_in_code_and_not_in_prose():
    assert _named_tasks('heads["vqa"]') == ["vqa"]
    assert _named_tasks("module.objectives.nlvr2.weight") == ["nlvr2"]
    assert _named_tasks('name = "objectives.irtr.weight"') == ["irtr"]
    assert _named_tasks('def f():\n    """As vqa has it."""\n    return vqav2_label_size  # of vqa\n') == []


def test_no_task_is_named_elsewhere():
    package = Path(vlc.__file__).parent
    named = {}
    for path in sorted(package.rglob("*.py")):
        place = path.relative_to(package).as_posix()
        if not place.startswith(AT_HOME) and (found := _named_tasks(path.read_text(encoding="utf-8"))):
            named[place] = found
    assert named == {}


def test_the_table_is_read_without_torch():
    code = "import sys, vlc.tasks, vlc.objectives.options; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0
