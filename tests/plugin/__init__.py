"""A package that adds an optimizer and an architecture, which docs/training.md and docs/model.md show."""
