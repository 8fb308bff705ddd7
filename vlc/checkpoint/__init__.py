"""Checkpoint files of this and other projects: they are recognised, read without running code, loaded and exported.

This room must not import configuration, training or use. `python -m vlc.checkpoint` shows and converts files.
"""
