"""Training: a batch plan that is a pure function, an exact resume, and one optimizer step in a page.

Import from the modules: `train.stage` (train), `train.checkpoint` (run_key), `train.plan`, `train.loop`, ...
"""
