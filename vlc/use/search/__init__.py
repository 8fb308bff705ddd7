"""`python run.py index` and `search`: a checkpoint's embeddings of images and texts, kept on disk and searched.

An index is a folder: index.json tells which model made it from what, {images,texts}.N.faiss hold the vectors, and
{images,texts}.arrow the place of each, of images with the identity of the file. One batch of images or texts is in
memory at a time. What a search reads is compared with checksums before: of index.json in itself, of vectors in
index.json, of each place beside it, and of these in index.json.
"""

from vlc.use.search.building import build_index
from vlc.use.search.searching import search

__all__ = ["build_index", "search"]
