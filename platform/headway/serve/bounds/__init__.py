"""Bounds: what a request may ask for, checked before the models of vLLM see it."""
