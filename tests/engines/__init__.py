"""How each real engine is pinned, built and started: for tests, for `make`, and for a single machine."""
