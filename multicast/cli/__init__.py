"""The commands of `python -m multicast`, a module each: `add_arguments(parser)` and `run(given)`, its exit code.

Owns what people type and read. Must hold nothing that a program would want: that is in the package itself.
"""
