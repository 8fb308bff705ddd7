"""The way from Arrow files to batches.

This room knows neither model nor objectives nor configuration, and imports none of them.
"""
