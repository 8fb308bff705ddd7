"""The commands that make the run, its test and this page again."""

import shlex
from typing import Any

from vlc.common.errors import UserError
from vlc.use.report.run import Run
from vlc.use.report.section import Section
from vlc.use.report.sections.origin import changed, defaults


def section(run: Run) -> Section | None:
    return Section("How to reproduce", "reproduce", {"runs": [_steps(one) for one in run.both]})


def _steps(run: Run) -> dict[str, Any]:
    lines = []
    if run.facts is not None:
        if run.facts.commit:
            lines.append(f"git checkout {run.facts.commit.rstrip('+')}")
        lines.append(f"python {run.facts.command}")
    try:
        config = run.config
        keys = {key: value for key, value, _ in changed(config, defaults(config, [])) if _typed(value) is not None}
        tasks: dict[str, Any] = {"tasks": list(config["tasks"])} if config.get("tasks") else {}
        words = [
            f"{key}={_typed(value)}"
            for key, value in {**tasks, **keys}.items()
            if key not in ("load_path", "test_only")
        ]
        if run.facts is None:  # the keys that differ from the defaults make up for the command
            start = [f"load_path={config['load_path']}"] if config.get("load_path") else []
            lines.append(f"python run.py with {shlex.join([*words, *start])}")
        where = [f"data_root={config['data_root']}", f"per_gpu_batchsize={config['per_gpu_batchsize']}"]
        if not run.is_test:
            named: dict[str, Any] = tasks or {"loss_names": dict(config["loss_names"])}
            given = [f"{key}={_typed(value)}" for key, value in named.items()]
            lines.append(
                f"python run.py with {shlex.join([*given, *where, f'load_path={run.checkpoint}', 'test_only=True'])}"
            )
    except UserError as error:
        lines.append(f"# {error}")
    if run.facts and run.facts.commit and run.facts.commit.endswith("+"):
        lines.append("# files were changed after this commit")
    return {"name": run.label, "lines": lines}


def _typed(value: Any) -> str | None:
    """A value as the command line takes it; None for one that it does not take in one word."""
    if isinstance(value, list):
        return f"[{','.join(map(str, value))}]"
    return str(value)
