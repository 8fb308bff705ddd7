"""A trained checkpoint in use: `vlc.Model`, answers, an index on disk, search.

No other room imports this one.
"""
