"""What all rooms may use: errors for users, files that are written atomically, foreign text, the network's inputs.

This room knows nothing of learning, and imports no other room.
"""
