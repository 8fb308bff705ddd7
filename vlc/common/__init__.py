"""What everything else may use: errors for users, files that appear whole, foreign text on a terminal.

Knows nothing of learning, and imports no other room.
"""
