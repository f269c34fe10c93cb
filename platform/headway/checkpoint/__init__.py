"""Checkpoints: sharded, checksummed, committed by one journal entry, restored to any world size, without pickle."""
