"""What everything else may use: errors for users, files that appear whole, foreign text, the network's inputs.

This room knows nothing of learning, and imports no other room.
"""
