"""Folder runs: every image below the sources times every question, into a CSV that survives being killed."""

from dragonfly_cli.batch.run import run_batch

__all__ = ["run_batch"]
