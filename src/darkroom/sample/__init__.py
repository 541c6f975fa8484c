"""Pictures from a model: the diffusers pipeline, its export, drawing many pictures, and sheets of them.

Import from the modules: `pipeline` (diffusers), `export`, `draw` and `grid`. `grid` alone needs no torch.
"""
