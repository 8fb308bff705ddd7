"""`python run.py index` and `search`: a checkpoint's embeddings of images and texts, kept on disk and searched.

An index is a folder: index.json names its model and its data, {images,texts}.N.faiss hold the vectors, and
{images,texts}.arrow holds the place of each vector, for images with the identity of the file. One batch of images or
texts is in memory at a time. A search compares everything that it reads with checksums: index.json has its own, and the
checksums of the vectors and of all places; each place has its own, too.
"""

from vlc.use.search.building import build_index
from vlc.use.search.searching import search

__all__ = ["build_index", "search"]
