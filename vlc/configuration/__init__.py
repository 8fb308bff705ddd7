"""The way from the words of a command to frozen, checked settings. Nothing below sees a raw dictionary.

This room imports no torch, so that `print_config` is quick. Of the objectives it may import the options alone.
"""
