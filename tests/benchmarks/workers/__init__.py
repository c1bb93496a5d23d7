"""Child processes of the benchmarks. They also run in the reference's environment: standard library and drivers at the top,
either wrapper only when a process is told to use it."""
