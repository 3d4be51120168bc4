"""The gates of a night: input, model, output, rules and similar items, one module each, with figures and bounds.

A night (nightly/night.py) is published only if every check passes. To add a check, measure its figure in the module of
its gate, and compare it there with a bound: a field `gate_...` of RunConfig (config/run.py).
"""
