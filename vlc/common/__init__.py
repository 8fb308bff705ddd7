"""What everything else may use: errors for users, files that appear whole, foreign text, the network's inputs.

Knows nothing of learning, and imports no other room.
"""
