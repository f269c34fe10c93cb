"""The vLLM engine: its start, the queue in front of it, and its replacement when it dies."""
