"""Folder runs: every image below the sources times every question, into a table that survives being killed.

``items`` says what is asked of what, ``ledger`` what is done, ``run`` is the loop; ``worker`` answers in this process,
``processes`` in several, ``on_ray`` on several machines; ``merge`` makes one table of shards.
"""
