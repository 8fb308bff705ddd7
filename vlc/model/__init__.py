"""The encoder: text tokens and image patches through one ViT.

Knows no task, and must not import objectives, configuration or training.
"""
