"""Loads a model once and answers many questions with it."""
