"""Data: builds token shards from documents, and reads micro-batches from token shards in a stateless order.

Uses numpy only; callers convert to torch.
"""

from headway.data.build import build
from headway.data.data_manifest import DataManifest
from headway.data.loader import Dataset, MicroBatch, Prefetcher, open_data
from headway.data.order import Order

__all__ = ["DataManifest", "Dataset", "MicroBatch", "Order", "Prefetcher", "build", "open_data"]
