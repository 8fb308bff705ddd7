"""What happens to work and data when something goes wrong: `python -m tests.reliability` (see docs/reliability.md).

Not a part of the ordinary tests, because it takes half an hour; a few tries of each part are in
tests/test_reliability_harness.py.
"""
