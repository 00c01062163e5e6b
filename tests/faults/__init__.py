"""The fault harness: recipes that are killed, cut off from power or given a full disk, and then resumed.

`python -m tests.faults` runs it. A run that went through faults has to end as one that never met any: the same weights,
bit for bit, the same history, the same scores, and nothing half-written left.
"""
