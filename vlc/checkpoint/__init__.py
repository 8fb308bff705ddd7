"""Checkpoint files of this and other projects: recognised, read without running code, loaded, exported.

Must not import configuration, training or use. `python -m vlc.checkpoint` shows and converts files.
"""
