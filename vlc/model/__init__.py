"""The network: text and patch embeddings, one ViT, a pooler. Heads belong to the objectives."""
