"""Inference graphs from a model's own files: config.json and safetensors, without torch and transformers.

A family is a pure module that describes its network in operations of a `Writer`; there is a writer for each runtime.
"""
