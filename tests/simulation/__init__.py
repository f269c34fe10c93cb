"""Simulation of the run protocol: production code, with chance, time and store faults determined by a seed."""
