"""The arithmetic of training on one rank: the sharded model, its gradient, and the optimizer step."""
