"""What every answer is accompanied by, on stderr and in the record."""

NOTICE = "research use only, not a medical device"
DEMO_WARNING = "answered by the built-in demonstration model, which is not Dragonfly-Med"
DEMO_CANNOT_SYNTHESISE = "the built-in model was not taught to put answers together: read what it says of each field"
