"""`run.py sweep`: runs with every combination of values, beside each other, and their means and spreads over seeds."""

from vlc.workflows.sweep.command import sweep

__all__ = ["sweep"]
