"""``dragonfly finetune``: files of questions and answers in, a checkpoint folder out."""
