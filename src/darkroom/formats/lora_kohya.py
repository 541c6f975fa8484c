"""Adapters alone, by the names and with the scale of kohya's sd-scripts: `lora_unet_...`, `.alpha`.

ComfyUI and A1111 add alpha / rank * up @ down to a layer, and 1 * up @ down where a file has no alpha. The network
of Stable Diffusion 1.x and 2.x has diffusers' names there, others have those of their original layout: adapters
of layers that are one layer there become one of the added-up rank.

With `.dora_scale`, DoRA's, ComfyUI multiplies each row of base and adapter by it, over the norm of the base's row;
DoRA's own definition (Liu et al. 2024, arXiv 2402.09353) has the norm of both together. So what is written is the
magnitude times the ratio of these norms.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.formats import lokr
from darkroom.formats.base import ExportedModel, Format, in_dtype
from darkroom.formats.lora_files import DORA_FILE, LORA_FILE
from darkroom.formats.original.places import Place, PlaceOf, changed, grouped
from darkroom.formats.single_file import ORIGINALS, metadata
from darkroom.settings.json_texts import read_json

if TYPE_CHECKING:
    from torch import Tensor

_DOWN, _UP, _MAGNITUDE = ".lora_A.weight", ".lora_B.weight", ".lora_magnitude_vector"
# Options of peft that change what is added, and that darkroom has not.
_OTHER = ("use_rslora", "lora_bias", "use_qalora", "alora_invocation_tokens")
_DORA_NOTE = (
    "this is DoRA as ComfyUI 0.3.77 reads it; A1111 and LyCORIS compute something else from the same file, so give"
    " these, and any other, --format single_file"
)


@dataclass(frozen=True)
class Adapter:
    """One layer's: scale * up @ down is added. dora_scale: (rows, 1, ...), as ComfyUI reads it, or None."""

    down: "Tensor"
    up: "Tensor"
    scale: float
    dora_scale: "Tensor | None" = None


@dataclass(frozen=True)
class Adapters:
    """Those of an export, by layer. rank, alpha: what most layers have; is_even: all have them."""

    layers: Mapping[str, Adapter]
    rank: int
    alpha: float
    is_even: bool


def tensors(model: ExportedModel, dtype: str) -> "tuple[dict[str, Tensor], dict[str, str], list[str]]":
    """See `Format`."""
    import torch

    part = model.family.part
    state, config = read_file(model.folder, part)
    original = ORIGINALS[model.family.name](model)
    as_here = model.family.name == "unet-sd"
    place_of = Place if as_here else original.parts[part][1](model.config(part))
    if config.get("peft_type") == "LOKR":
        found, scales = lokr.tensors(state, config, place_of, rows_of(model.folder / part))
        return in_dtype(found, dtype) | scales, metadata(model, original, "/lora") | lokr.METADATA, []
    adapters = read_adapters(model.folder, part, state, config)
    found, scales = {}, {}
    is_dora = False
    for name, adapter in joined(adapters.layers, place_of, model.folder / part).items():
        key = "lora_unet_" + name.replace(".", "_")
        found |= {f"{key}.lora_down.weight": adapter.down, f"{key}.lora_up.weight": adapter.up}
        # Readers divide by the rank of what they find.
        scales[f"{key}.alpha"] = torch.tensor(adapter.scale * len(adapter.down))
        if adapter.dora_scale is not None:
            scales[f"{key}.dora_scale"], is_dora = adapter.dora_scale.contiguous(), True
    told = {
        "ss_network_module": "networks.lora",
        # sd-scripts' word for ranks that differ.
        "ss_network_dim": str(adapters.rank) if adapters.is_even else "Dynamic",
        "ss_network_alpha": str(adapters.alpha) if adapters.is_even else "Dynamic",
    }
    notes = [_DORA_NOTE] if is_dora else []
    return in_dtype(found, dtype) | scales, metadata(model, original, "/lora") | told, notes


def read_adapters(
    folder: Path, part: str, state: "Mapping[str, Tensor]", config: Mapping[str, Any]
) -> Adapters:
    """An export's adapters; state, config: see `read_file`.

    Raises:
        ValueError: they are of another kind than LoRA and DoRA.
    """
    path = folder / LORA_FILE
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not (isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0):
        raise ValueError(f"{path} says no rank and alpha (lora_adapter_metadata), as darkroom's exports do")
    ends = (_DOWN, _UP, _MAGNITUDE) if config.get("use_dora") else (_DOWN, _UP)
    other = [name for name in _OTHER if config.get(name)]
    other += [name for name in state if not (name.endswith(ends) and name.startswith(f"{part}."))]
    if other:
        raise ValueError(
            f"{path} has {other[0]}: lora_kohya holds LoRA, DoRA and LoKr of the {part}; --format single_file"
            " holds the whole model, adapters added"
        )
    alphas: Any = config.get("alpha_pattern") or {}
    ratios = _norm_ratios(folder) if config.get("use_dora") else None
    layers = {}
    for name in (name.removesuffix(_DOWN) for name in state if name.endswith(_DOWN)):
        down, up, layer = state[f"{name}{_DOWN}"], state[f"{name}{_UP}"], name.removeprefix(f"{part}.")
        dora_scale = None
        if ratios is not None:
            rows = [-1] + [1] * (down.ndim - 1)
            dora_scale = (state[f"{name}{_MAGNITUDE}"].flatten() * ratios[layer]).reshape(rows)
        layers[layer] = Adapter(down, up, float(alphas.get(layer, alpha)) / len(down), dora_scale)
    is_even = not alphas and all(len(a.down) == rank for a in layers.values())
    return Adapters(layers, rank, float(alpha), is_even)


def read_file(folder: Path, part: str) -> "tuple[dict[str, Tensor], dict[str, Any]]":
    """The tensors of an export's adapters, and what peft says of those of a part.

    Raises:
        ValueError: there are none.
    """
    from safetensors import SafetensorError, safe_open

    path = folder / LORA_FILE
    if not path.is_file():
        raise ValueError(
            f"{path.parent} has no adapters ({path.name}); a run with model.lora writes them, and --format"
            " single_file holds a whole model"
        )
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
            settings = read_json((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is no file of adapters: {error}") from error
    named = settings.items() if isinstance(settings, dict) else ()
    return state, {name.removeprefix(f"{part}."): value for name, value in named}


def _norm_ratios(folder: Path) -> "dict[str, Tensor]":
    from safetensors.torch import load_file

    if not (folder / DORA_FILE).is_file():
        raise ValueError(
            f"{folder} has no {DORA_FILE}, which darkroom writes beside DoRA's adapters: ComfyUI's form depends on"
            " the base model's weights; --format single_file holds the whole model, adapters added"
        )
    return load_file(folder / DORA_FILE)


def joined(adapters: Mapping[str, Adapter], place_of: PlaceOf, folder: Path) -> dict[str, Adapter]:
    """Layer of the original layout -> its adapter.

    Where several layers are one there, the downs stand below one another and the ups on a diagonal of blocks: each
    changes its own rows, and rows of a layer without adapters stay as they are.

    Args:
        folder: the network's, with its weights by their names in diffusers.
    Raises:
        ValueError: adapters of a layer that the network has not.
    """
    rows = rows_of(folder)
    if missing := sorted(set(adapters) - set(rows)):
        raise ValueError(f"there are adapters of {missing[0]}, and the network has no such layer")
    weights = grouped((f"{name}.weight" for name in rows), place_of)
    found = {}
    for name, pieces in weights.items():
        layers = [(source.removesuffix(".weight"), place) for source, place in pieces]
        if any(layer in adapters for layer, _ in layers):
            found[name.removesuffix(".weight")] = _as_one(layers, adapters, rows, folder)
    return found


def _as_one(
    layers: "list[tuple[str, Place]]", adapters: Mapping[str, Adapter], rows: Mapping[str, int], folder: Path
) -> Adapter:
    """The adapter of layers that are one; see `joined`."""
    import torch

    here = [(adapters[layer], place, layer) for layer, place in layers if layer in adapters]
    first = here[0][0]
    down = torch.cat([adapter.down for adapter, _, _ in here])
    starts = dict(zip((layer for layer, _ in layers), _sums(rows[layer] for layer, _ in layers), strict=True))
    up = torch.zeros(sum(rows[layer] for layer, _ in layers), len(down), *first.up.shape[2:])
    column = 0
    for adapter, place, layer in here:
        rank, start = len(adapter.down), starts[layer]
        part = changed(adapter.up, place)
        # One layer has one scale.
        part = part if adapter.scale == first.scale else part * (adapter.scale / first.scale)
        up[start : start + rows[layer], column : column + rank] = part
        column += rank
    if first.dora_scale is None:
        return Adapter(down, up, first.scale)
    dora_scales = []
    for layer, place in layers:
        own = adapters[layer].dora_scale if layer in adapters else _row_norms(folder, layer)
        assert own is not None
        dora_scales.append(changed(own, place))
    return Adapter(down, up, first.scale, torch.cat(dora_scales))


def _sums(counts: Iterable[int]) -> list[int]:
    """Where each of several runs of rows begins."""
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts[:-1]


def rows_of(folder: Path) -> dict[str, int]:
    """Layer -> rows of its weight, from a network's files; layers of one dimension, norms, are left out."""
    from safetensors import safe_open

    rows = {}
    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            for name in file.keys():  # noqa: SIM118 (no mapping)
                shape = file.get_slice(name).get_shape()
                if name.endswith(".weight") and len(shape) > 1:
                    rows[name.removesuffix(".weight")] = shape[0]
    return rows


def _row_norms(folder: Path, layer: str) -> "Tensor":
    """(rows, 1): of a layer's weight."""
    from safetensors import safe_open

    for path in sorted(folder.glob("*.safetensors")):
        with safe_open(path, framework="pt") as file:
            if f"{layer}.weight" in file.keys():  # noqa: SIM118 (no mapping)
                weight: Tensor = file.get_tensor(f"{layer}.weight")
                return weight.flatten(1).norm(dim=1, keepdim=True)
    raise ValueError(f"{folder} has no weight of {layer}")


SPEC = Format(
    name="lora_kohya",
    title="adapters as kohya's sd-scripts and LyCORIS write them, with .alpha: for ComfyUI and A1111",
    ending="-lora.safetensors",
    families=tuple(ORIGINALS),
    instead="its diffusers folder, which has the adapters added, is what holds it",
    tensors=tensors,
)
