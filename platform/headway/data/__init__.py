"""Data: documents to token shards, and token shards to micro-batches in an order that needs no state.

Numpy only: torch is the business of those who are fed.
"""

from headway.data.build import build
from headway.data.feed import Dataset, MicroBatch, Prefetch, open_data
from headway.data.manifest import Manifest
from headway.data.order import Order

__all__ = ["Dataset", "Manifest", "MicroBatch", "Order", "Prefetch", "build", "open_data"]
