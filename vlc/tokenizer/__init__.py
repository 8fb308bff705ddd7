"""Tokenizers of the user's own: they are trained on the texts of Arrow files, measured, and shown at work.

This room knows only files and tokenizers. `python -m vlc.tokenizer` trains and shows.
"""
