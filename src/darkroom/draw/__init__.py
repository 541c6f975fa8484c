"""The draw stage: pictures for held-out prompts, cut into chunks that are jobs of their own."""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 1
