"""The network alone in a GGUF file, its large matrices in 8, 5 or 4 bits: for GPUs with little memory.

ComfyUI's GGUF loader, stable-diffusion.cpp and diffusers read it, and take autoencoder and text encoders from
elsewhere. GGUF (github.com/ggml-org/ggml/blob/master/docs/gguf.md) quantizes 32 neighbours of a row together, with
a scale of their own.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from darkroom.formats import single_file
from darkroom.formats.base import DTYPES, ExportedModel, Format, in_dtype
from darkroom.formats.original.places import rearranged
from darkroom.settings.extras import Extra

if TYPE_CHECKING:
    from torch import Tensor

_GGUF = Extra("gguf", "gguf")
_QUANTIZED = ("q8_0", "q5_1", "q5_0", "q4_1", "q4_0")
_BLOCK = 32
# Smaller ones cost more in quality than they save.
_LEAST_NUMBERS = 1024
# diffusers reads a UNet's names behind this prefix alone; ComfyUI-GGUF and stable-diffusion.cpp do either way.
_PREFIXES = {"unet": single_file.NETWORK, "transformer": ""}
# Family -> what readers call it, as `general.architecture`; they tell SD 1.x and 2.x apart by shapes.
_ARCHITECTURES = {"unet-sd": "sd1", "unet-sdxl": "sdxl", "sd3": "sd3", "flux": "flux"}
# GGUF's names of these types.
_TYPES = {"float16": "F16", "bfloat16": "BF16", "float32": "F32"}


def tensors(model: ExportedModel, dtype: str) -> "tuple[dict[str, Tensor], dict[str, str], list[str]]":
    """See `Format`: the network's in float32, by the names that it was first published with."""
    original = single_file.ORIGINALS[model.family.name](model)
    part = model.family.part
    _, places = original.parts[part]
    found = rearranged(model.state(part), places(model.config(part)))
    found = {f"{_PREFIXES[part]}{name}": tensor for name, tensor in found.items()}
    told = single_file.metadata(model, original) | {"general.architecture": _ARCHITECTURES[model.family.name]}
    notes = single_file.notes(model, original)
    in_dtype({n: t for n, t in found.items() if _type_of(n, t, dtype) == "F16"}, "float16")
    if dtype in _QUANTIZED:
        kept = [name for name, tensor in found.items() if tensor.ndim > 1 and not _is_quantized(name, tensor)]
        share = sum(found[name].numel() for name in kept) / sum(tensor.numel() for tensor in found.values())
        notes.append(
            f"{share:.0%} of the weights are kept in 16 or 32 bits: they are no large matrices of blocks"
        )
    return found, told, notes


def write(path: Path, tensors: "Mapping[str, Tensor]", metadata: Mapping[str, str], dtype: str) -> None:
    """See `Format`."""
    from gguf import GGML_QUANT_VERSION, GGMLQuantizationType, GGUFWriter, LlamaFileType
    from gguf.quants import quantize

    told = dict(metadata)
    writer = GGUFWriter(path, told.pop("general.architecture"))
    kind = _TYPES.get(dtype, dtype.upper())
    writer.add_quantization_version(GGML_QUANT_VERSION)
    writer.add_file_type(LlamaFileType["ALL_F32" if kind == "F32" else f"MOSTLY_{kind}"])
    for name, value in sorted(told.items()):
        writer.add_string(name, value)
    for name, tensor in tensors.items():
        stored = GGMLQuantizationType[_type_of(name, tensor, dtype)]
        writer.add_tensor(name, quantize(tensor.float().contiguous().numpy(), stored), raw_dtype=stored)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()


def _type_of(name: str, tensor: "Tensor", dtype: str) -> str:
    """GGUF's name of the type that a tensor is kept in: vectors and what is outside the blocks stay precise."""
    if dtype in _TYPES:
        return _TYPES[dtype] if tensor.ndim > 1 else "F32"
    if _is_quantized(name, tensor):
        return dtype.upper()
    return "F16" if tensor.ndim == 4 else "F32"


def _is_quantized(name: str, tensor: "Tensor") -> bool:
    is_inner = "blocks." in name
    return is_inner and tensor.ndim == 2 and tensor.shape[1] % _BLOCK == 0 and tensor.numel() > _LEAST_NUMBERS


SPEC = Format(
    name="gguf",
    title="the network alone, its matrices in 8, 5 or 4 bits: for ComfyUI-GGUF and diffusers",
    ending=".gguf",
    families=tuple(_ARCHITECTURES),
    instead="its diffusers folder is what holds it",
    dtypes=(*_QUANTIZED, *DTYPES),
    extra=_GGUF,
    tensors=tensors,
    write=write,
)
