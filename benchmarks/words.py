"""Config keys from a command line, as run.py takes them."""

import ast
from collections.abc import Iterable
from typing import Any


def config_values(words: Iterable[str]) -> dict[str, Any]:
    """key=value words -> values by key, loss_names.NAME inside loss_names; other words are left out."""
    values: dict[str, Any] = {}
    for word in words:
        key, separator, value = word.partition("=")
        if separator:
            name, _, inner = key.partition(".")
            values[name] = values.get(name, {}) | {inner: _literal(value)} if inner else _literal(value)
    return values


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text  # a name
