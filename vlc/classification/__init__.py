"""Image classification with the image half of the encoder: what `main_finetune.py` runs."""
