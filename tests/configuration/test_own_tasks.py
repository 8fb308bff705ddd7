"""Tasks of users' own: their file is read, checked with places in it, stored as plain data and read again without it."""

import importlib
import json
import sys
from pathlib import Path

import pytest

from vlc.common.errors import UserError
from vlc.configuration import own_tasks
from vlc.configuration.config import RunError, ex, resolve
from vlc.configuration.config_files import load_config_file
from vlc.configuration.settings import Settings
from vlc.configuration.stored_rows import as_dataset, as_plain
from vlc.data.catalog import CATALOG
from vlc.data.kinds import one_of
from vlc.data.spec import Column, DatasetSpec, ImageKey
from vlc.objectives.options import CLASSES, OPTIONS
from vlc.tasks import HEADS, TASKS

FILE = """
from vlc.data.spec import Column, DatasetSpec
from vlc.data.kinds import IDENTIFIERS, one_of
from vlc.tasks.task import Task

NAMES = ("wren", "owl")
DATASETS = {
    "nests": DatasetSpec(
        "table",
        {"train": ("nests_train",), "test": ("nests_test",)},
        text="question",
        fields={"labels": Column("bird", one_of(NAMES)), "identifier": Column("id", IDENTIFIERS)},
        validation=(),
    )
}
TASKS = {
    "birds": Task(
        {"classes": 1},
        ("nests",),
        {"classes": "birds"},
        {"classes": {"names": NAMES}},
        epochs=3,
    )
}
"""
OWN_KIND = """
from dataclasses import dataclass
from vlc.objectives.classes import Classes
from vlc.objectives.options import ClassesOptions

@dataclass(frozen=True)
class SoftOptions(ClassesOptions):
    softness: float = 0.5

class Soft(Classes):
    pass

OBJECTIVES = {"soft": (SoftOptions, Soft)}
"""


@pytest.fixture(autouse=True)
def registries():
    """Nothing that a test enters stays."""
    kept = [(registry, dict(registry)) for registry in (TASKS, HEADS, CATALOG, OPTIONS, CLASSES, own_tasks._OWN)]
    path, modules = list(sys.path), set(sys.modules)
    yield
    for registry, rows in kept:
        registry.clear()
        registry.update(rows)
    sys.path[:] = path
    for name in set(sys.modules) - modules:
        if str(getattr(sys.modules[name], "__file__", "")).startswith("/tmp"):
            del sys.modules[name]


@pytest.fixture
def birds(tmp_path):
    """A function that writes the file, changed, and returns its path."""

    def write(old: str = "", new: str = "", name: str = "birds_of_a_test.py", text: str = FILE) -> str:
        assert old in text
        path = tmp_path / name
        path.write_text(text.replace(old, new) if old else text)
        importlib.invalidate_caches()
        return str(path)

    return write


def _settings(path: str, **values) -> Settings:
    config = resolve(tasks=[path], per_gpu_batchsize=4, **values)
    settings = Settings.from_config(config)
    assert settings.as_config() == config
    return settings


def test_a_task_of_a_file_is_as_ours(birds):
    settings = _settings(birds(), **{"birds.learning_rate": 3e-5})
    (task,) = settings.tasks
    (head,) = task.heads
    assert (task.name, task.datasets, task.learning_rate) == ("birds", ("nests",), 3e-5)
    assert (head.name, head.kind, head.options.names) == ("birds", "classes", ("wren", "owl"))
    assert settings.optim.max_epoch == 3
    assert settings.as_config()["tasks"] == ["birds"], "a checkpoint stores no path"


def test_a_file_with_an_objective_of_its_own(birds):
    path = birds('{"classes": 1}', '{"soft": 1}', text=OWN_KIND + FILE.replace('{"classes": "birds"}', "{}"))
    path = birds('{"classes": {"names"', '{"soft": {"names"', text=Path(path).read_text())
    (task,) = _settings(path, **{"soft.softness": 0.25}).tasks
    assert (task.heads[0].kind, task.heads[0].options.softness) == ("soft", 0.25)
    rows = json.loads(json.dumps(own_tasks.stored([task])))
    own_tasks._OWN.clear()
    del TASKS["birds"], OPTIONS["soft"], CATALOG["nests"]
    with pytest.raises(
        UserError, match=r"x.ckpt has learnt birds with the objective soft, .*pass tasks=\[birds_of_a_test"
    ):
        own_tasks.enter_stored("x.ckpt", rows)


def test_a_head_without_a_name_has_that_of_its_kind(birds):
    """Also where a head of ours of another kind is called so."""
    assert HEADS["classes"].kind == "image_classes"
    (task,) = _settings(birds('{"classes": "birds"}', "{}")).tasks
    assert (task.heads[0].name, HEADS["classes"].kind) == ("classes", "classes")


def test_rows_come_back_from_plain_data(birds):
    (task,) = _settings(birds()).tasks
    rows = json.loads(json.dumps(own_tasks.stored([task])))
    assert rows["tasks"]["birds"]["file"] == "birds_of_a_test.py"
    before = TASKS["birds"], CATALOG["nests"], HEADS["birds"].options
    for registry, name in ((TASKS, "birds"), (CATALOG, "nests"), (HEADS, "birds")):
        del registry[name]
    own_tasks._OWN.clear()
    own_tasks.enter_stored("x.ckpt", rows)
    task, spec, options = before
    read = CATALOG["nests"].fields
    assert (TASKS["birds"], HEADS["birds"].options) == (task, options)
    assert read["identifier"] == spec.fields["identifier"]
    assert read["labels"].kind.collate(["owl", "wren"]).tolist() == [1, 0]
    assert DatasetSpec(**vars(CATALOG["nests"]) | {"fields": spec.fields}) == spec
    assert own_tasks.stored(_settings(birds()).tasks) == rows


def test_a_checkpoint_gives_a_task_whose_file_is_not_named(birds, monkeypatch, tmp_path):
    rows = own_tasks.stored(_settings(birds()).tasks)
    for registry, name in ((TASKS, "birds"), (CATALOG, "nests"), (HEADS, "birds")):
        del registry[name]
    own_tasks._OWN.clear()
    checkpoint = tmp_path / "x.ckpt"
    checkpoint.touch()
    monkeypatch.setattr(ex, "stored_rows", lambda path: rows)
    (task,) = Settings.from_config(resolve(tasks=["birds"], load_path=str(checkpoint), per_gpu_batchsize=4)).tasks
    assert task.heads[0].options.names == ("wren", "owl")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda rows: rows["datasets"]["nests"].update(tables={"train": ["../../secret"]}), "names without folders"),
        (lambda rows: rows["datasets"]["nests"].update(surprise=1), "is damaged"),
        (lambda rows: rows["tasks"].update(birds=3), "is damaged"),
        (
            lambda rows: rows["tasks"]["birds"].update(objectives={"os.system": 1}),
            "which is code of birds_of_a_test.py",
        ),
        (lambda rows: rows["tasks"].update(vqa=rows["tasks"]["birds"]), "the name 'vqa' in TASKS is the name of a row"),
    ],
)
def test_damaged_or_hostile_rows_of_a_checkpoint_are_refused(change, message, birds):
    rows = json.loads(json.dumps(own_tasks.stored(_settings(birds()).tasks)))
    own_tasks._OWN.clear()
    for registry, name in ((TASKS, "birds"), (CATALOG, "nests"), (HEADS, "birds")):
        del registry[name]
    change(rows)
    with pytest.raises(UserError, match=f"x.ckpt.*{message}"):
        own_tasks.enter_stored("x.ckpt", rows)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("epochs=3", "epochs=1 / 0", r"line 22: the file raises ZeroDivisionError: division by zero"),
        ("epochs=3", "epochs=", r"line 22: the file raises SyntaxError"),
        ("epochs=3", "epoch=3", r"the file raises TypeError: .*'epoch'"),
        ("TASKS =", "ROWS =", r'has no rows TASKS = \{"NAME": Task\(...\)\}: add them as docs/your_own_task.md'),
        ('"birds": Task', '"vqa": Task', r"line 17: the name 'vqa' in TASKS is the name of a row.*choose another"),
        ('"birds": Task', '"seed": Task', r"line 17: the name 'seed' in TASKS .*key of the configuration"),
        ('"birds": Task', '"a bird": Task', r"line 17: .*expected letters, digits and _"),
        ('"nests": Data', '"coco": Data', r"line 8: the name 'coco' in DATASETS is the name of a row"),
        (
            '{"classes": 1}',
            '{"clases": 1}',
            r"line 18: Unknown objective in the row birds 'clases'. Did you mean classes",
        ),
        ('{"classes": 1}', '{"classes": -1}', r"line 17: birds.objectives.classes=-1 is not valid"),
        ('("nests",)', '("nest",)', r"line 19: Unknown data set in the row birds 'nest'. Did you mean nests"),
        ('("nests",)', '"nests"', r"line 17: birds.datasets='nests' is not valid: expected a list of names"),
        ('{"names": NAMES}', '{"nams": NAMES}', r"line 21: Unknown option of birds.classes 'nams'. Did you mean names"),
        ('{"classes": "birds"}', '{"classes": "vqa"}', r"line 20: the head 'vqa' .*of another kind \(answers\)"),
        ("epochs=3", 'transforms=("mae", "x")', r"line 22: Unknown image pipeline in the row birds 'x'"),
        ('("nests_train",)', '"nests_train"', r"line 8: nests.tables\['train'\]='nests_train' .*expected a tuple"),
        ("validation=()", 'validation=("dev",)', r"line 8: Unknown split in nests.validation 'dev'"),
        ('Column("bird", one_of(NAMES))', '"bird"', r"line 8: nests.fields\['labels'\]='bird' .*expected a column"),
    ],
)
def test_mistakes_in_a_file_are_told_with_the_line(old, new, message, birds):
    with pytest.raises(RunError, match=rf"birds_of_a_test.py.*{message}"):
        resolve(tasks=[birds(old, new)])


def test_which_file_and_which_row(birds, tmp_path, monkeypatch):
    with pytest.raises(RunError, match="no.py does not exist: name the file of your task by its path"):
        resolve(tasks=[str(tmp_path / "no.py")])
    with pytest.raises(RunError, match=r"Python has a module json already .*: rename the file"):
        resolve(tasks=[birds(name="json.py")])
    with pytest.raises(RunError, match="its name is not valid for a module: rename the file"):
        resolve(tasks=[birds(name="my-birds.py")])
    two = birds(text=FILE + '\nTASKS["others"] = TASKS["birds"]\n', name="two_of_a_test.py")
    with pytest.raises(
        RunError, match=r"should give one task, and has birds, others: name one of them, as in .*:birds"
    ):
        resolve(tasks=[two])
    with pytest.raises(RunError, match="has birds, others, and no third"):
        resolve(tasks=[f"{two}:third"])
    assert resolve(tasks=f"[{two}:others]")["tasks"] == ["others"]
    with pytest.raises(RunError, match="is the name of a row of .*two_of_a_test.py"):
        resolve(tasks=[birds()])
    monkeypatch.chdir(tmp_path)
    with pytest.raises(RunError, match=r"pass tasks=\[two_of_a_test.py\]"):
        resolve(tasks=["two_of_a_test"])


def test_a_configuration_file_executes_nothing(birds, tmp_path):
    path = tmp_path / "from_somebody.yaml"
    path.write_text(f"tasks: [{birds()}]\n")
    with pytest.raises(UserError, match="is executed, and so it is named on a command line alone"):
        load_config_file(path)
    assert "birds" not in TASKS


def test_rows_of_the_package_are_not_stored():
    task = Settings.from_config(resolve(tasks=["vqa"], per_gpu_batchsize=4)).tasks
    assert own_tasks.stored(task) == {}


def test_names_of_classes_are_numbered():
    numbers = one_of(("a", "b")).collate(["b", "a"])
    assert (numbers.tolist(), str(numbers.dtype)) == ([1, 0], "int64")


@pytest.mark.parametrize("classes", [("a", "b"), 3])
def test_classes_are_stored_by_their_names_or_their_number(classes):
    spec = DatasetSpec("table", {"train": ("t",)}, fields={"labels": Column("sort", one_of(classes))})
    assert as_dataset(json.loads(json.dumps(as_plain(spec))), Path("x.ckpt")) == spec


def test_the_names_of_images_are_stored():
    key = ImageKey("number", "coco", {"test": "birds"}, numbered=False)
    spec = DatasetSpec("table", {"train": ("t",), "test": ("u",)}, image_key=key, from_training=("test",))
    assert as_dataset(json.loads(json.dumps(as_plain(spec))), Path("x.ckpt")) == spec
