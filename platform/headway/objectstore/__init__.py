"""Object storage: the protocol, folders, S3 buckets, retries and circuit breakers. Only this package imports boto3."""

from headway.objectstore.protocol import Buffer, Store, read_document
from headway.objectstore.url import open_store

__all__ = ["Buffer", "Store", "open_store", "read_document"]
