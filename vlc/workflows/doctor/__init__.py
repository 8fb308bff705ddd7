"""A look at the machine: packages, processor, disks, data and checkpoints, and what mends what is missing or broken.

`run.py doctor` runs the probes of `command.py`. They import nothing beyond the standard library before they are called, and
torch is first imported in a process of its own: so the command also works where a package is missing or broken.
"""
