"""Labelled images in the forms they come in: folders, Arrow or Parquet shards, WebDataset tar files.

Every source knows all labels from the start and reads an image's encoded bytes by its number.
"""
