"""From the words of a command to frozen, checked settings; nothing below sees a raw dictionary.

Imports no torch, so that `print_config` is quick, and must not import objectives or training.
"""
