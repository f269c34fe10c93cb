"""Data: documents to token shards, and token shards to micro-batches in an order that needs no state.

Numpy only: torch is the business of those who are fed.
"""

from headway.data.build import build
from headway.data.data_manifest import DataManifest
from headway.data.loader import Dataset, MicroBatch, Prefetcher, open_data
from headway.data.order import Order

__all__ = ["DataManifest", "Dataset", "MicroBatch", "Order", "Prefetcher", "build", "open_data"]
