"""Pictures from a model: drawing many of them, and sheets of them.

Import from the modules: `model` (SampleModel, load_model), `options`, `seeds` and `grid`; all but the first need
no torch.
"""
