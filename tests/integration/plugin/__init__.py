"""A package that adds an optimizer and an architecture, as docs/training.md and docs/model.md show it."""
