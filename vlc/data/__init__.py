"""From Arrow files to batches.

Knows neither model nor objectives nor configuration, and imports none of them.
"""
