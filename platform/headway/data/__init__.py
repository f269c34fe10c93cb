"""Data: builds token shards from documents, and reads micro-batches from token shards in a stateless order.

Uses numpy only; callers convert to torch. Readers need no `data.build`, which is slow to import.
"""

from headway.data.data_manifest import DataManifest
from headway.data.loader import Dataset, MicroBatch, Prefetcher, open_data
from headway.data.order import Order

__all__ = ["DataManifest", "Dataset", "MicroBatch", "Order", "Prefetcher", "open_data"]
