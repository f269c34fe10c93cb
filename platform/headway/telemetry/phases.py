"""The phases that a rank's time is booked to."""

PHASES = ("queue", "startup", "restore", "data", "step", "checkpoint", "evaluation", "drain", "lost")
"""All phases. Each second of a rank belongs to exactly one."""
