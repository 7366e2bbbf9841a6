"""Loads a model once and answers many questions with it."""

import os

# So that threads of the network that wait leave their core to the one that reads ahead; read when torch is imported.
os.environ.setdefault("OMP_WAIT_POLICY", "passive")
