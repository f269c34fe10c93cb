"""Patches: every place where Headway changes Ray or vLLM, or depends on a part of them that is not documented.

Each function is one patch; importing the modules applies none. `tests/contract/test_patches.py` pins the versions and
the source that each assumes, so an upgrade fails there first.
"""
