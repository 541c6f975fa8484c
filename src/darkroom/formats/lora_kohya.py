"""Adapters alone, by the names and with the scale of kohya's sd-scripts: `lora_unet_...`, `.alpha`.

ComfyUI and A1111 add alpha / rank * up @ down to a layer, and 1 * up @ down where a file has no alpha. The network
of Stable Diffusion 1.x and 2.x has diffusers' names there, others have those of their original layout: adapters
of layers that are one layer there become one of the added-up rank.
"""

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from darkroom.formats.base import ExportedModel, Format, in_dtype
from darkroom.formats.original.places import Place, PlaceOf, changed, grouped
from darkroom.formats.single_file import ORIGINALS, metadata
from darkroom.settings.json_texts import read_json

if TYPE_CHECKING:
    from torch import Tensor

_DOWN, _UP = ".lora_A.weight", ".lora_B.weight"
# Options of peft that change what is added.
_OTHER = ("alpha_pattern", "rank_pattern", "use_dora", "use_rslora")


def tensors(model: ExportedModel, dtype: str) -> "tuple[dict[str, Tensor], dict[str, str], list[str]]":
    """See `Format`."""
    import torch

    part = model.family.part
    adapters, rank, alpha = read_adapters(model.folder, part)
    original = ORIGINALS[model.family.name](model)
    as_here = model.family.name == "unet-sd"
    place_of = Place if as_here else original.parts[part][1](model.config(part))
    found: dict[str, Tensor] = {}
    scales: dict[str, Tensor] = {}
    for name, (down, up) in joined(adapters, place_of, _rows(model.folder / part)).items():
        key = "lora_unet_" + name.replace(".", "_")
        found |= {f"{key}.lora_down.weight": down, f"{key}.lora_up.weight": up}
        # Readers divide by the rank of what they find, so the scale stays alpha / rank.
        scales[f"{key}.alpha"] = torch.tensor(alpha / rank * len(down))
    told = {
        "ss_network_module": "networks.lora",
        "ss_network_dim": str(rank),
        "ss_network_alpha": str(alpha),
    }
    return in_dtype(found, dtype) | scales, metadata(model, original, "/lora") | told, []


def read_adapters(folder: Path, part: str) -> "tuple[dict[str, tuple[Tensor, Tensor]], int, float]":
    """Layer -> (down, up) of an export's adapters, with their rank and alpha.

    Raises:
        ValueError: there are none, or they are of another kind than LoRA.
    """
    from safetensors import SafetensorError, safe_open

    from darkroom.formats.lora import LORA_FILE

    path = folder / LORA_FILE
    if not path.is_file():
        raise ValueError(
            f"{folder} has no adapters ({LORA_FILE}); a run with model.lora writes them, and --format single_file"
            " holds a whole model"
        )
    try:
        with safe_open(path, framework="pt") as file:
            state = {name: file.get_tensor(name) for name in sorted(file.keys())}
            settings = read_json((file.metadata() or {}).get("lora_adapter_metadata", "{}"))
    except (SafetensorError, ValueError) as error:
        raise ValueError(f"{path} is no file of adapters: {error}") from error
    named = settings.items() if isinstance(settings, dict) else ()
    config: dict[str, Any] = {name.removeprefix(f"{part}."): value for name, value in named}
    rank, alpha = config.get("r"), config.get("lora_alpha")
    if not (isinstance(rank, int) and isinstance(alpha, int | float) and rank > 0):
        raise ValueError(f"{path} says no rank and alpha (lora_adapter_metadata), as darkroom's exports do")
    other = [name for name in _OTHER if config.get(name)]
    other += [name for name in state if not (name.endswith((_DOWN, _UP)) and name.startswith(f"{part}."))]
    if other:
        raise ValueError(
            f"{path} has {other[0]}: lora_kohya holds plain LoRA of the {part}, of one rank and alpha"
        )
    layers = [name.removesuffix(_DOWN).removeprefix(f"{part}.") for name in state if name.endswith(_DOWN)]
    pairs = {name: (state[f"{part}.{name}{_DOWN}"], state[f"{part}.{name}{_UP}"]) for name in layers}
    return pairs, rank, float(alpha)


def joined(
    adapters: "Mapping[str, tuple[Tensor, Tensor]]", place_of: PlaceOf, rows: Mapping[str, int]
) -> "dict[str, tuple[Tensor, Tensor]]":
    """Layer of the original layout -> (down, up).

    Where several layers are one there, the downs stand below one another and the ups on a diagonal of blocks: each
    changes its own rows, and rows of a layer without adapters stay as they are.

    Args:
        rows: of every layer's weight, by its name in diffusers.
    Raises:
        ValueError: adapters of a layer that the network has not.
    """
    import torch

    if missing := sorted(set(adapters) - set(rows)):
        raise ValueError(f"there are adapters of {missing[0]}, and the network has no such layer")
    weights = grouped((f"{name}.weight" for name in rows), place_of)
    found = {}
    for name, pieces in weights.items():
        layers = [(source.removesuffix(".weight"), place) for source, place in pieces]
        here = [(layer, *adapters[layer], place) for layer, place in layers if layer in adapters]
        if not here:
            continue
        down = torch.cat([a for _, a, _, _ in here])
        _, _, some_up, _ = here[0]
        total = sum(rows[layer] for layer, _ in layers)
        up = torch.zeros(total, len(down), *some_up.shape[2:])
        starts = dict(
            zip((layer for layer, _ in layers), _sums(rows[layer] for layer, _ in layers), strict=True)
        )
        column = 0
        for layer, a, b, place in here:
            up[starts[layer] : starts[layer] + len(b), column : column + len(a)] = changed(b, place)
            column += len(a)
        found[name.removesuffix(".weight")] = (down, up)
    return found


def _sums(counts: Iterable[int]) -> list[int]:
    """Where each of several runs of rows begins."""
    starts = [0]
    for count in counts:
        starts.append(starts[-1] + count)
    return starts[:-1]


def _rows(folder: Path) -> dict[str, int]:
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


SPEC = Format(
    name="lora_kohya",
    title="adapters as kohya's sd-scripts write them, with .alpha: for ComfyUI and A1111",
    ending="-lora.safetensors",
    families=tuple(ORIGINALS),
    instead="its diffusers folder, which has the adapters added, is what holds it",
    tensors=tensors,
)
