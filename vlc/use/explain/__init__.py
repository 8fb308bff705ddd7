"""Explanations: which patches and words an answer of a trained checkpoint depends on."""

from vlc.use.explain.explain import explain
from vlc.use.explain.explanation import Explanation
from vlc.use.explain.methods import DEFAULT, METHODS

__all__ = ["DEFAULT", "METHODS", "Explanation", "explain"]
