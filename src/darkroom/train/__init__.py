"""Training: a batch plan that is a pure function, an exact resume, and a trainer that takes any samples.

Import from the modules: `train.stage` (train), `train.trainer` (Trainer), `train.checkpoint` (run_key), ...
"""

# Raised by whoever changes what the stage writes: the training then starts again, at step 0.
VERSION = 5
