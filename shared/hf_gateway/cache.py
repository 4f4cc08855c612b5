"""Vector caches under the import path that README documents; the code is in `hf_gateway.tasks.embedding.cache`."""

from hf_gateway.tasks.embedding.cache import CacheCounts as CacheCounts
from hf_gateway.tasks.embedding.cache import cache_backed as cache_backed
