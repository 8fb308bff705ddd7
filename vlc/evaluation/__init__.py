"""Measurements on a whole split: sums that add up over processes, rankings, files of predictions.

This room knows encoder and objectives, and must not import configuration, training or checkpoints.
"""
