"""A trained checkpoint in use: answers, an index on disk, search.

No other room imports this one.
"""
