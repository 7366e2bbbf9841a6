"""dragonfly: questions about biomedical images, answered on your own machine."""

__version__ = "0.1.0"
