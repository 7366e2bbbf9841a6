"""Files of questions with known answers: what ``finetune`` learns from, and ``eval`` scores against."""
