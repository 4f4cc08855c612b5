"""Bulk embedding: the texts of files or rows into parts with their vectors, by worker processes; a stopped job is resumed."""

from hf_gateway.corpus.job import CorpusReport, embed_dataset

__all__ = ["CorpusReport", "embed_dataset"]
