"""Pipelines: one class per method, all of them a `LongVideoPipeline`."""
