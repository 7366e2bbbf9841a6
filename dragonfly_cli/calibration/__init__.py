"""From reviewed answers to probabilities that mean what they say: per question and model, fitted, stored, applied."""
