"""The tables of the pages that repeat what the code says: `python -m docs.tables` writes them.

A page holds a table between `<!-- table: NAME -->` and `<!-- end -->`; NAME is a key of TABLES. A test compares every page
with what its tables would be now.
"""

import ast
import inspect
import io
import json
import logging
import re
import tokenize
from collections.abc import Callable, Iterable
from dataclasses import asdict
from pathlib import Path
from typing import Any

from demo.comparison import HEADER, cells
from vlc.checkpoint.formats import LAYOUTS
from vlc.configuration import config
from vlc.configuration.command_settings import FitSettings, ProbeSettings, ServiceSettings, SweepSettings
from vlc.configuration.config import resolve
from vlc.configuration.groups import NESTED
from vlc.configuration.recipes import OBJECTIVE_NAMES, RECIPES
from vlc.configuration.use_settings import USE_KEYS, UseSettings
from vlc.data import transforms
from vlc.data.catalog import CATALOG
from vlc.data.transforms import TRANSFORMS
from vlc.model.sizes import ENCODERS
from vlc.objectives.kinds import KINDS
from vlc.tasks import FAMILIES, HEADS, TASKS
from vlc.workflows.fit.kinds import KINDS as KINDS_OF_TABLES
from write_arrow.machine.source import RawSource
from write_arrow.sources import SOURCES

ROOT = Path(__file__).parents[1]
PAGES = (*sorted(ROOT.glob("*.md")), *sorted(ROOT.glob("docs/*.md")))
_TABLE = re.compile(r"(<!-- table: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)


def table(header: str, rows: Iterable[Iterable[Any]], align: str = "") -> str:
    """A Markdown table.

    header: the titles of the columns, separated by " | ".
    align: for each column "l" or "r"; by default all are "l".
    """
    titles = header.split(" | ")
    rules = ["--:" if side == "r" else "---" for side in align or "l" * len(titles)]
    cells = [[str(cell).replace("|", "\\|") for cell in row] for row in rows]
    return "".join(f"| {' | '.join(row)} |\n" for row in [titles, rules, *cells])


def recipes() -> str:
    """The named configs that state a task; a recipe and its variant with RandAugment share a row."""
    rows = []
    for name in RECIPES:
        if not name.startswith("task_") or name.removesuffix("_randaug") in set(RECIPES) - {name}:
            continue
        values = resolve(name)
        variant = f", `{name}_randaug`" if f"{name}_randaug" in RECIPES else ""
        weights = [objective for objective, weight in values["loss_names"].items() if weight]
        pipeline = values["train_transform_keys"][0]
        if named := [TASKS[name] for name in values["tasks"]]:
            weights = list(dict.fromkeys(task.head(kind) for task in named for kind in task.objectives))
            pipeline = ", ".join(dict.fromkeys(task.transforms[0] for task in named))
        steps, epochs = values["max_steps"], values["max_epoch"]
        length = f"{steps:,} steps" if steps else f"{epochs} epochs"
        row = (", ".join(values["datasets"]), ", ".join(weights), pipeline, values["batch_size"], length)
        rows.append((f"`{name}`{variant}", *row))
    return table("named config | data sets | objectives | images | batch | length", rows)


def task_families() -> str:
    """The tasks of each family, but for those on embedded data, with the first sentence about the family."""
    rows = []
    for family in FAMILIES:
        names = [name for name, task in family.TASKS.items() if not any("emoji" in one for one in task.datasets)]
        if names:
            what = (family.__doc__ or "").partition(".")[0]
            rows.append((what, ", ".join(f"`{name}`" for name in names)))
    return table("what | tasks", rows)


def named_configs() -> str:
    """The named configs that do not state a task, and what they set."""
    rows = [
        (f"`{name}`", ", ".join(f"`{key}={value}`" for key, value in values.items()))
        for name, values in RECIPES.items()
        if not name.startswith("task_")
    ]
    return table("named config | sets", rows)


def config_keys() -> str:
    """Every key with its default and its comment, a table for each group of `vlc.configuration.config.config`."""
    source = inspect.getsource(config).partition("@ex.config\n")[2].partition("\n\n\n")[0]
    comments = {
        token.start[0]: (token.string.lstrip("# "), token.line.strip().startswith("#"))
        for token in tokenize.generate_tokens(io.StringIO(source + "\n").readline)
        if token.type == tokenize.COMMENT
    }
    defaults = resolve()
    groups: dict[str, list[tuple[str, ...]]] = {}
    title, line = "name and place of a run", 0
    function = ast.parse(source).body[0]
    assert isinstance(function, ast.FunctionDef)
    for node in function.body:
        for number in range(line, node.lineno):
            if number in comments and comments[number][1]:
                title = comments[number][0].partition(":")[0]
        line = node.end_lineno + 1
        comment = " ".join(comments[number][0] for number in range(node.lineno, line) if number in comments)
        if not isinstance(node, ast.Assign):
            continue  # the dictionaries of the tasks: there are none by default
        (target,) = node.targets
        assert isinstance(target, ast.Name)
        key = target.id
        if key in NESTED:
            continue  # they have a table of their own
        groups.setdefault(title, []).append((f"`{key}`", f"`{_plain(defaults[key])}`", comment))
    return "\n".join(f"### {title}\n\n{table('key | default | meaning', rows)}" for title, rows in groups.items())


def nested_keys() -> str:
    """Every key in the dictionaries of settings, with its default and what the docstring of its group says of it."""
    return "\n\n".join(_keys_of(name, group) for name, group in NESTED.items())


def service_keys() -> str:
    """The keys of the service, likewise."""
    return _keys_of("service", ServiceSettings)


def sweep_keys() -> str:
    """The keys of sweeps, likewise."""
    return _keys_of("sweep", SweepSettings)


def probe_keys() -> str:
    """The keys of the probe, likewise."""
    return _keys_of("probe", ProbeSettings)


def fit_keys() -> str:
    """The keys of `run.py fit`, likewise."""
    return _keys_of("fit", FitSettings)


def fit_kinds() -> str:
    """The kinds of tasks that `run.py fit` finds in a table."""
    rows = [
        (f"`{name}`", kind.about, ", ".join(f"`{role}`" for role in ("image", *kind.roles)), f"`{kind.metric}`")
        for name, kind in KINDS_OF_TABLES.items()
    ]
    return table("task | what is learnt | columns | metric", rows)


def _keys_of(name: str, group: type) -> str:
    meaning = dict(re.findall(r"^(\w+): (.+(?:\n    .+)*)", inspect.getdoc(group) or "", re.MULTILINE))
    rows = [
        (f"`{name}.{field}`", f"`{_plain(default)}`", " ".join(meaning[field].split()))
        for field, default in asdict(group()).items()
    ]
    return table("key | default | meaning", rows)


def use_keys() -> str:
    """The keys that the commands alone have, with their defaults and comments."""
    comments = dict(re.findall(r"^    (\w+): .* = .*  # (.+)$", inspect.getsource(UseSettings), re.MULTILINE))
    rows = [
        (f"`{key}`", "a dictionary" if isinstance(default, dict) else f"`{default!r}`", comments[key])
        for key, default in USE_KEYS.items()
    ]
    return table("key | default | meaning", rows)


def _plain(value: Any) -> str:
    if value and isinstance(value, dict):
        return ", ".join(f"{key}={item}" for key, item in value.items())
    return repr(value)


def datasets() -> str:
    """The files of every data set, by what they serve, and the command that writes them."""
    rows = []
    for name, spec in CATALOG.items():
        if spec.labelled:
            rows.append((f"`{name}`", spec.writer, *["any form of [labelled images](#labelled-images)"] * 3))
            continue
        evaluated = [_stems(spec.tables[split] for split in splits) for splits in (spec.validation, spec.test)]
        others = set(spec.tables) - {"train", *spec.validation, *spec.test}
        named = f" (and with `splits`: {_stems(spec.tables[split] for split in sorted(others))})" if others else ""
        rows.append(
            (f"`{name}`", spec.writer, _stems([spec.tables.get("train", ())]), evaluated[0], evaluated[1] + named)
        )
    return table("`datasets=` | writer | training | validation | test", rows)


def image_keys() -> str:
    """How the rows of each data set name images that others show too, and which of its splits a clean list holds."""
    rows = []
    for name, spec in CATALOG.items():
        if key := spec.image_key:
            elsewhere = "".join(f", of {split} in {other}" for split, other in key.elsewhere.items())
            listed = (", ".join(spec.evaluated[kind]) for kind in ("val", "test"))
            rows.append(
                (f"`{name}`", f"`{key.column}` in {key.collection}{elsewhere}", *listed, ", ".join(spec.cleaned))
            )
    return table("`datasets=` | name of the image | validation | test | cleaned", rows)


def _stems(groups: Iterable[tuple[str, ...]]) -> str:
    return ", ".join(f"`{stem}`" for stems in groups for stem in stems)


def writers() -> str:
    """The data sets that `python -m write_arrow` writes, and what the folder of their raw data holds."""
    rows = []
    for name, source in SOURCES.items():
        rows.append((f"`{name}`", source.summary, source.layout if isinstance(source, RawSource) else ""))
    return table("NAME | what it writes | what `--root` holds", rows)


def objectives() -> str:
    """The objectives by their names in loss_names, what their modules say of them, and their metrics."""
    rows = []
    for name in OBJECTIVE_NAMES:
        objective = KINDS[HEADS[name].kind]
        summary = " ".join(inspect.getdoc(inspect.getmodule(objective)).partition("\n\n")[0].split())
        rows.append((f"`{name}`", f"`{HEADS[name].kind}`", summary, ", ".join(objective.metrics)))
    return table("objective | kind | what it trains | metrics", rows)


def tasks() -> str:
    """The tasks, their objectives, heads and data sets, and the names that they have elsewhere."""
    rows = []
    for name, task in TASKS.items():
        heads = ", ".join(f"`{task.head(kind)}`" for kind in task.objectives)
        published = ", ".join(task.published)
        datasets = ", ".join(task.datasets)
        rows.append((f"`{name}`", ", ".join(task.objectives), heads, datasets, task.max_text_len, published))
    return table("task | objectives | heads | data sets | tokens | published as", rows)


def image_pipelines() -> str:
    """The image pipelines, with the comments of their registry."""
    comments = dict(re.findall(r'^    "(\w+)": \w+,  # (.+)$', inspect.getsource(transforms), re.MULTILINE))
    return table("name | what it does", [(f"`{name}`", comments[name]) for name in TRANSFORMS])


_POSITIONS = {"sincos": "fixed sines and cosines", "trained": "learned for image_size", "none": "rotary"}


def encoders() -> str:
    """The sizes of the encoder."""
    rows = []
    for name, size in ENCODERS.items():
        positions = (
            _POSITIONS[size.positions]
            if size.learned_grid is None
            else f"learned, {size.learned_grid} x {size.learned_grid}"
        )
        rows.append(
            (f"`{name}`", size.width, size.depth, size.heads, size.patch_size, positions, size.pixel_normalization)
        )
    return table("`vit=` | width | layers | heads | patch | positions | pixels", rows, "lrrrrll")


def layouts() -> str:
    """The checkpoint layouts, by the parameter that marks them."""
    rows = [
        (
            f"`{name}`",
            f"`{layout.marker}`",
            "no" if layout.image_only else "yes",
            "yes" if layout.hub or layout.vision else "no",
            "no" if layout.read_only else "yes",
        )
        for name, layout in LAYOUTS.items()
    ]
    return table("layout | parameter that marks it | text half | `config.json` beside it | written", rows)


def demo_results() -> str:
    """What the demonstration measured: docs/demo.json is a copy of its `result/demo/table.json`."""
    columns = ("test", "test_chance", "held_out", "held_out_chance")
    rows = json.loads((ROOT / "docs/demo.json").read_text(encoding="utf-8"))
    cells = [
        (row["label"], *("" if row[key] is None else f"{row[key]} {row['unit']}".strip() for key in columns))
        for row in rows
    ]
    return table(" | test | chance | held_out | chance", cells, "lrrrr")


def replica_results() -> str:
    """What the recipes of the replicas reached: docs/replicas.json has the rows of `make replicas`."""
    rows = json.loads((ROOT / "docs/replicas.json").read_text(encoding="utf-8"))
    columns = ("value", "guess", "wrong_images", "no_text")
    cells = [(f"`{row['task']}`", row["metric"], *(f"{row[name]} %" for name in columns)) for row in rows]
    return table("task | metric on test | image and text | a guess | wrong images | no text", cells, "llrrrr")


def multitask_results() -> str:
    """One model of all tasks beside a model for each: docs/multitask.json is written by demo.multitask --compare."""
    comparison = json.loads((ROOT / "docs/multitask.json").read_text(encoding="utf-8"))
    return table(" | ".join(HEADER), cells(comparison), "llrrr")


def _measured(title: str) -> list[dict[str, Any]]:
    tables = json.loads((ROOT / "benchmarks/data.json").read_text(encoding="utf-8"))["tables"]
    return next(rows for name, rows in tables.items() if name.startswith(title))


def image_speed() -> str:
    """Images a second of the published pipelines and of ours, from benchmarks/data.json."""
    found = {(row["kind"], row["side"], row["size"]): row for row in _measured("images a second on one core")}
    rows = []
    for kind, side, size in found:
        owner, _, name = side.partition(": ")
        if owner == "ours" and (kind == "JPEG" or name == "mae"):
            published, ours = found[kind, f"published: {name}", size], found[kind, side, size]
            share = f"{100 * ours['x bare decoding']:.0f} %"
            cells = published["images/s"], ours["images/s"], f"{ours['x published']:.2f}", share
            rows.append((f"{kind}, {ours['kB']} kB", name, size, *cells))
    columns = "images | pipeline | pixels | published | this project | times | share of bare decoding"
    return table(columns, rows, "llrrrrr")


def loading_speed() -> str:
    """Images a second by the number of loader processes, from benchmarks/data.json."""
    rates = {(row["size"], row["processes"]): row["images/s"] for row in _measured("images a second by the number")}
    sizes, numbers = (dict.fromkeys(column) for column in zip(*rates, strict=True))
    rows = [(number or "none", *(rates[size, number] for size in sizes)) for number in numbers]
    return table(" | ".join(["loader processes", *(f"{size} pixels" for size in sizes)]), rows, "r" * (1 + len(sizes)))


def opening_speed() -> str:
    """Seconds and memory of opening a data set, from benchmarks/data.json."""
    found = {(row["captions"], row["process"]): row for row in _measured("opening")}
    rows = []
    for captions in dict.fromkeys(captions for captions, _ in found):
        seconds = [f"{found[captions, process]['seconds']:.2f} s" for process in ("main", "loader")]
        memory = [f"{found[captions, process]['own MB']:.0f} MB" for process in ("main", "loader")]
        rows.append((captions, *seconds, *memory))
    return table("captions | main process | a loader process | memory | memory of the loader process", rows, "rrrrr")


TABLES: dict[str, Callable[[], str]] = {
    made.__name__: made
    for made in (
        *(
            recipes,
            task_families,
            named_configs,
            config_keys,
            nested_keys,
            use_keys,
            service_keys,
            sweep_keys,
            probe_keys,
            fit_keys,
            fit_kinds,
            datasets,
            image_keys,
            writers,
            objectives,
            tasks,
            image_pipelines,
            encoders,
            layouts,
        ),
        *(demo_results, replica_results, multitask_results, image_speed, loading_speed, opening_speed),
    )
}


def written(page: str) -> str:
    """The text of a page with its tables as they would be now. Raises KeyError for an unknown table."""
    return _TABLE.sub(lambda found: f"{found[1]}{TABLES[found[2]]()}{found[3]}", page)


def main() -> None:
    logging.disable(logging.WARNING)  # Sacred warns of every recipe that sets max_steps to None
    for path in PAGES:
        before = path.read_text(encoding="utf-8")
        after = written(before)
        if after != before:
            path.write_text(after, encoding="utf-8")
            print(f"Wrote the tables of {path.relative_to(ROOT)}")


if __name__ == "__main__":
    main()
