"""Teaching a Dragonfly network: samples in, a trained network out; usable without the command line.

    from dragonfly_med.training import Exchange, Sample, Settings, TrainingRun

    sample = Sample([[Exchange("Is there necrosis?", "Yes")]], pixels=processor.pixels(image))
    run = TrainingRun(network, processor, [sample], [], Settings(recipe="language", steps=100), work_folder)
    trained = run.train()

Needs the packages of the ``finetune`` extra (accelerate; peft for adapters).
"""

from dragonfly_med.training.samples import Conversation, Exchange, Sample
from dragonfly_med.training.sequences import Teaching
from dragonfly_med.training.training import Settings, Trained, TrainingRun

__all__ = ["Conversation", "Exchange", "Sample", "Settings", "Teaching", "Trained", "TrainingRun"]
