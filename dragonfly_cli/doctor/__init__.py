"""``dragonfly doctor``: is everything here that answering needs, and does it really work?

A check is a function of the settings that yields findings; ``CHECKS`` in ``examination`` lists them in the order of
the report. Nothing is installed, repaired or downloaded, and no image of the user's is opened.
"""
