"""Benchmarks: each prints a ratio, measured interleaved in one run."""
