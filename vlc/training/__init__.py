"""A run: its data, its Lightning module, its trainer, and the checkpoints from which it can continue.

Must not import `use`.
"""
