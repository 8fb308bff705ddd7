"""The objectives: each is one class in one file, with its head, loss, metrics and answers. `kinds.py` lists them.

This room knows neither trainer nor loader nor configuration, and must not import them. `options.py` imports no torch,
because the configuration reads it.
"""
