"""Watch: steps of a training, judged while it goes on.

Import from the modules: `watch.judge` (judge_step), `watch.stage` (gather).
"""

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 1
