"""A trained checkpoint written for other programs: `python run.py export`, a file for each format."""
