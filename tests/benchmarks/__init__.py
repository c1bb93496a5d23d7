"""Measurements of the product beside the raw driver and beside the AWS Advanced Python Wrapper: `python -m tests.benchmarks`.

Not collected by pytest: these are numbers with a goal, not assertions. See docs/benchmarks.md.
"""
