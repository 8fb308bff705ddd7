"""after_import: an action runs once a module is there, however late, and once."""

import importlib
import sys

from vlc.common.after_import import after_import


def test_the_action_runs_behind_the_module(tmp_path, monkeypatch):
    (tmp_path / "late_module.py").write_text("VALUE = 1\n")
    monkeypatch.syspath_prepend(tmp_path)
    seen = []
    after_import("late_module", lambda: seen.append(sys.modules["late_module"].VALUE))
    after_import("late_module", lambda: seen.append("the second action"))
    assert seen == []
    module = importlib.import_module("late_module")
    assert (sorted(map(str, seen)), module.VALUE) == (["1", "the second action"], 1)
    importlib.reload(module)
    assert len(seen) == 2
    after_import("late_module", lambda: seen.append("at once"))
    assert seen[2:] == ["at once"]
    sys.modules.pop("late_module")
