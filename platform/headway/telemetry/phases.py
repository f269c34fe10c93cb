"""The phases of the time ledger."""

PHASES = ("queue", "startup", "restore", "data", "step", "checkpoint", "evaluation", "drain", "lost")
"""All phases. Each second of a rank belongs to exactly one."""
