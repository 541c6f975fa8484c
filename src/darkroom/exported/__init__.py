"""What exported model folders carry along: our own networks and pipelines, each a file that is copied as it is.

The ground floor: these files import torch, diffusers and transformers alone, so that an export needs no darkroom.
"""
