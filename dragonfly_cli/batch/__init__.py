"""Folder runs: every image below the sources times every question, into a CSV that survives being killed."""

from dragonfly_cli.batch.run import BatchSettings, run_batch

__all__ = ["BatchSettings", "run_batch"]
