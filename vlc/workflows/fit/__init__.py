"""`run.py fit`: a labelled table of a user becomes a trained and tested task, by commands that can be typed again."""

from vlc.workflows.fit.command import fit

__all__ = ["fit"]
