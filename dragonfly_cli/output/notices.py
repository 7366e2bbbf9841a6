"""What every answer is accompanied by, on stderr and in the record."""

NOTICE = "research use only, not a medical device"
DEMO_WARNING = "answered by the built-in demonstration model, which is not Dragonfly-Med"
