"""The gates of a night: input, model, output and rules, one module each, with the figures and their bounds.

A night is published only if every check passes. To add a check, measure its figure in the module of its gate, and
compare it there with a bound from `RunConfig`.
"""
