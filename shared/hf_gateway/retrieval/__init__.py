"""Indexes of passages: folders with `passages.parquet`, `vectors.npy` and `space.json`, made by `hf-gateway index`."""
