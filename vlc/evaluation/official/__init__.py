"""Official evaluators: they score a file of predictions with the public annotations, as the authors of the data do.

`python -m vlc.evaluation.official NAME` runs one; each is a file with a `Scorer`, and a row in `__main__.py`.
"""
