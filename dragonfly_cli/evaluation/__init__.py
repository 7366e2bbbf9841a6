"""How well a model answers questions whose answers are known: asked by ``batch``, scored by named metrics."""
