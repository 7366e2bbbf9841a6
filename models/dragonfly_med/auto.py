"""Makes transformers' auto classes know Dragonfly; imported together with any of its classes."""

from transformers import AutoConfig, AutoModelForCausalLM, AutoProcessor

from dragonfly_med.configuration import DragonflyConfig
from dragonfly_med.modeling import DragonflyForCausalLM
from dragonfly_med.processing import DragonflyProcessor

AutoConfig.register(DragonflyConfig.model_type, DragonflyConfig, exist_ok=True)
AutoModelForCausalLM.register(DragonflyConfig, DragonflyForCausalLM, exist_ok=True)
AutoProcessor.register(DragonflyConfig, DragonflyProcessor, exist_ok=True)
