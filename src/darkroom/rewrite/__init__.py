"""Rewrite: a language model writes captions of the captions that pictures have, as shorter ones.

Import from the module: `rewrite.stage` (rewrite_part). A dataset without the section `rewrite` has no such stage.
"""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 1
