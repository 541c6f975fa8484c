"""Pretrained components: how the configuration names them by kind (`base`, `use`), and how each kind is loaded.

Import from the modules: `base` and `use` are read with the configuration and import no torch.
"""
