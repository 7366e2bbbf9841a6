"""How much memory of a GPU answering takes, computed from a network's shapes before any weight is read."""

from dragonfly_med.configuration import DragonflyConfig
from dragonfly_med.processing import TRAINED_LENGTH
from dragonfly_med.quantization import empty_network, quantized_weights
from dragonfly_med.views import plan_views

# NF4: half a byte, one byte of scale per 64 weights, and one float32 per 256 of those.
_NF4_BYTES_PER_WEIGHT = 0.5 + 1 / 64 + 4 / (64 * 256)

# Of numbers that are computed: bfloat16 or float16. A layer holds about four copies of its widest result at a time.
_COMPUTED_BYTES = 2
_LIVE_COPIES = 4

# CUDA's libraries and what the allocator cannot use.
_OVERHEAD_BYTES = 384 * 2**20


def device_memory_needed(config: DragonflyConfig, quantized: bool) -> int:
    """Bytes that answering takes on a GPU, computed from shapes: weights, cache of the longest prompt, activations."""
    network = empty_network(config)
    linears = quantized_weights(network) if quantized else set()
    weights = {name: weight.numel() for name, weight in network.named_parameters()}
    per_weight = {True: _NF4_BYTES_PER_WEIGHT, False: _COMPUTED_BYTES}
    total = sum(size * per_weight[name in linears] for name, size in weights.items())
    largest = max((weights[name] for name in linears), default=0)  # is dequantized before a product of many rows
    rest = _cache_numbers(config) + _activation_numbers(config) + largest
    return int(total) + rest * _COMPUTED_BYTES + _OVERHEAD_BYTES


def _cache_numbers(config: DragonflyConfig) -> int:
    text = config.text_config
    keys_and_values = 2 * text.num_hidden_layers * text.num_key_value_heads * text.head_dim
    return keys_and_values * TRAINED_LENGTH[config.architecture]


def _activation_numbers(config: DragonflyConfig) -> int:
    """The encoder sees all crops of an image at once, and then the language model all tokens of the prompt."""
    crops = plan_views((1, 1), config.crop_side_px, config.architecture).crop_count
    encoder = crops * (config.patch_grid**2 + 1) * config.vision_config.intermediate_size
    language_model = TRAINED_LENGTH[config.architecture] * config.text_config.intermediate_size
    return _LIVE_COPIES * max(encoder, language_model)
