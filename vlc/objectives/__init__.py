"""OBJECTIVES: what is learnt, one class and one file each: head, loss, metrics, answers. `kinds.py` lists them.

Knows neither trainer nor loader nor configuration, and must not import them. `options.py` imports no torch, and the
configuration imports nothing else here.
"""
