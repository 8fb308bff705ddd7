"""The encoder: text tokens and image patches go through one ViT.

This room knows no task, and must not import objectives, configuration or training.
"""
