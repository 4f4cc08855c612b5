"""Vector caches: what `cache=` takes, and the counts of `gateway.cache`."""

from hf_gateway.storage.vector_stores import SqliteCache as SqliteCache
from hf_gateway.storage.vector_stores import VectorCache as VectorCache
from hf_gateway.tasks.embedding.cache import CacheCounts as CacheCounts
