"""Rows of tasks that a test enters do not stay."""

import sys

import pytest

from vlc.configuration import own_tasks
from vlc.data.catalog import CATALOG
from vlc.tasks import HEADS, TASKS


@pytest.fixture(autouse=True)
def registries():
    kept = [(registry, dict(registry)) for registry in (TASKS, HEADS, CATALOG, own_tasks._OWN)]
    path = list(sys.path)
    yield
    for registry, rows in kept:
        registry.clear()
        registry.update(rows)
    sys.path[:] = path
    for name in [name for name in sys.modules if name.startswith("fit_")]:
        del sys.modules[name]
