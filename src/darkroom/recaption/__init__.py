"""Recaption: kept pictures get captions from a captioner.

Import from the modules: `recaption.stage` (recaption_part), `recaption.original`.
"""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 3
