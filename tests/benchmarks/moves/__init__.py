"""Every way a cluster can move, and what applications see of it: python -m tests.benchmarks.moves.

`events` is the table of what happens and what is right then, `scene` plays a cell of it, `verdicts` judges.
"""
