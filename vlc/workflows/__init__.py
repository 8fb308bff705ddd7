"""Whole commands that are made of others: they write data, train, test, report, and print each step as it can be typed.

No other room imports this one. It is the only one that calls the writers of `write_arrow`.
"""
