"""The wrapper inside real application servers: one table of cells (`cells`), one scenario that each of them has to pass.

`python -m tests.appservers --markdown` runs all of them and writes what was seen into docs/app-servers.md.
"""
