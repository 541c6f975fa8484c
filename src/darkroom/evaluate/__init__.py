"""Evaluate: pictures of held-out prompts, and the metrics on them. Import from the modules."""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 1
