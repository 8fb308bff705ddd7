"""A run: its data, its Lightning module, its trainer, and the checkpoints from which it can continue.

This room must not import `use`.
"""
