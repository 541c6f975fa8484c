"""Loads the pretrained components that `config/components.yaml` names, real ones and the demo's by the same code.

A component is a folder on this machine, or a Hugging Face repository. Weights are read from safetensors alone:
nothing is unpickled.
"""

import json
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from darkroom.config.components import Component
from darkroom.config.model import MMDiTModel
from darkroom.config.paths import local_path
from darkroom.models.mmdit import MMDiT
from darkroom.store import sha256_folder, sha256_json

if TYPE_CHECKING:
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
    from transformers import CLIPTokenizer

WEIGHTS = "model.safetensors"
MAX_PICTURE_CHUNK = 256


def component_folder(component: Component, kind: str | None = None) -> Path:
    """The folder that holds a component's files; a repository is downloaded (or found in its cache).

    Raises:
        ValueError: when the component is of another kind than `kind`, or its files cannot be found.
    """
    if kind is not None and component.kind != kind:
        raise ValueError(f"component {component.path} is of kind {component.kind}, where a {kind} is needed")
    folder = local_path(component.path)
    if not folder.is_dir():
        folder = _download(component)
    if component.subfolder:
        folder = folder / component.subfolder
    if not folder.is_dir():
        raise ValueError(f"component {component.path} has no subfolder {component.subfolder}")
    return folder


def _download(component: Component) -> Path:
    """The folder of a repository, without the parts of it that are not asked for."""
    path = component.path
    looks_like_repository = path.count("/") == 1 and not path.startswith((".", "/"))
    if not looks_like_repository:
        raise ValueError(f"component path {path} is no folder here, and no repository's name (owner/name)")
    from huggingface_hub import snapshot_download

    # A tokenizer lies beside its encoder in diffusers repositories.
    folders = [f"{component.subfolder}/*", "tokenizer*/*"] if component.subfolder else ["*"]
    endings = (".safetensors", ".json", ".txt")
    patterns = [f"{folder}{ending}" for folder in folders for ending in endings]
    try:
        return Path(snapshot_download(path, revision=component.revision, allow_patterns=patterns))
    except Exception as error:
        raise ValueError(
            f"component path {path} is no folder here, nor a repository within reach: {error}"
        ) from error


def fingerprint(component: Component) -> str:
    """SHA-256 of a component's files (and of the tokenizer beside them): what a cache's identity holds."""
    folder = component_folder(component)
    tokenizer = tokenizer_folder(folder) if component.kind in ("text_encoder", "clip") else folder
    digest = sha256_folder(folder)
    return digest if tokenizer == folder else sha256_json([digest, sha256_folder(tokenizer)])


def build_mmdit(
    settings: MMDiTModel, latent_channels: int, text_dim: int, pooled_dim: int, seed: int
) -> MMDiT:
    """An MMDiT with initial weights drawn from `seed`, without a trace in torch's global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return MMDiT(
            in_channels=latent_channels,
            num_blocks=settings.num_blocks,
            num_heads=settings.num_heads,
            head_dim=settings.head_dim,
            patch_size=settings.patch_size,
            mlp_ratio=settings.mlp_ratio,
            text_dim=text_dim,
            pooled_dim=pooled_dim,
            mlp=settings.mlp,
            positions=settings.positions,
            position_interpolation=settings.position_interpolation,
            text_scale=settings.text_scale,
            learned_time_scale=settings.learned_time_scale,
        )


# ---- VAE ----


def load_vae(component: Component, dtype: torch.dtype = torch.float32) -> "AutoencoderKL":
    """The diffusers AutoencoderKL in a component's folder, for inference."""
    from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

    folder = component_folder(component, "vae")
    for name in ("config.json", "diffusion_pytorch_model.safetensors"):
        require_file(folder, name, f"an AutoencoderKL's {name}")
    vae = AutoencoderKL.from_pretrained(str(folder), torch_dtype=dtype, use_safetensors=True)
    return vae.eval().requires_grad_(False)


def latent_shape(vae: "AutoencoderKL", width: int, height: int) -> tuple[int, int, int]:
    """(C, h, w) of the latents of a picture of width x height pixels: every level but the last halves it."""
    factor = 2 ** (len(vae.config["block_out_channels"]) - 1)
    return (vae.config["latent_channels"], height // factor, width // factor)


@torch.no_grad()
def encode_latents(vae: "AutoencoderKL", images: Tensor) -> Tensor:
    """Pictures (B, 3, H, W) in [-1, 1] -> float32 latents (mean - shift_factor) * scaling_factor.

    The posterior's mean, not a sample: the same picture always has the same latents.
    """
    mean = vae.encode(images.to(vae.device, vae.dtype)).latent_dist.mode().float()
    return (mean - (vae.config["shift_factor"] or 0.0)) * vae.config["scaling_factor"]


@torch.no_grad()
def decode_latents(vae: "AutoencoderKL", latents: Tensor) -> Tensor:
    """Latents as `encode_latents` gives them -> float32 pictures (B, 3, H, W), about [-1, 1]."""
    latents = latents.float() / vae.config["scaling_factor"] + (vae.config["shift_factor"] or 0.0)
    return vae.decode(latents.to(vae.device, vae.dtype), return_dict=False)[0].float()


# ---- tokenizer ----


def tokenizer_folder(folder: Path) -> Path:
    """Where a text encoder's tokenizer lies: with it, or beside it, `tokenizer_2` beside `text_encoder_2`."""
    ending = folder.name.removeprefix("text_encoder") if folder.name.startswith("text_encoder") else ""
    beside = folder.parent / f"tokenizer{ending}"
    for candidate in (folder, beside):
        has_pair = (candidate / "vocab.json").is_file() and (candidate / "merges.txt").is_file()
        if has_pair or (candidate / "tokenizer.json").is_file():
            return candidate
    raise ValueError(
        f"{folder} has no tokenizer (vocab.json and merges.txt, or tokenizer.json), nor has {beside}"
    )


def load_tokenizer(folder: Path) -> "CLIPTokenizer":
    """The byte-pair tokenizer in, or beside, a component's folder."""
    from transformers import CLIPTokenizer

    return CLIPTokenizer.from_pretrained(str(tokenizer_folder(folder)))


# ---- CLIP, for scoring ----


class ClipScorer:
    """A CLIP of clip-anytorch's model class with its tokenizer and its preprocessing.

    Args:
        model: clip.model.CLIP, float32.
        tokenizer: whose end-of-text token has the highest id, as CLIP.encode_text needs.
        mean, std: of each colour, for pictures in [0, 1].
    """

    def __init__(self, model: Any, tokenizer: "CLIPTokenizer", mean: list[float], std: list[float]):
        self.model, self.tokenizer = model, tokenizer
        self.image_size: int = model.visual.input_resolution
        self.mean = torch.tensor(mean).view(1, 3, 1, 1)
        self.std = torch.tensor(std).view(1, 3, 1, 1)
        highest = model.vocab_size - 1
        if tokenizer.eos_token_id != highest:
            raise ValueError(
                f"the tokenizer ends texts with token {tokenizer.eos_token_id}; this CLIP needs {highest}"
            )

    @property
    def device(self) -> torch.device:
        """Where the model is; embeddings come back to the CPU."""
        return self.model.logit_scale.device

    @torch.no_grad()
    def encode_images(self, images: Any) -> Tensor:
        """L2-normalised float32 embeddings (B, embed_dim), on the CPU.

        Args:
            images: uint8 (B, 3, H, W), or a list of PIL pictures or of uint8 arrays (H, W, 3) of any sizes.
        """
        if isinstance(images, Tensor):
            chunks = [self.preprocess(chunk) for chunk in images.split(MAX_PICTURE_CHUNK)]
        else:
            single = torch.cat([self.preprocess(_picture_tensor(image)) for image in images])
            chunks = list(single.split(MAX_PICTURE_CHUNK))
        encoded = [self.model.encode_image(chunk.to(self.device)).float() for chunk in chunks]
        return F.normalize(torch.cat(encoded), dim=-1).cpu()

    def preprocess(self, images: Tensor) -> Tensor:
        """uint8 (B, 3, H, W) -> (B, 3, size, size): shorter side resized (bicubic), centre crop, normalised."""
        if images.dtype != torch.uint8 or images.ndim != 4 or images.shape[1] != 3:
            raise ValueError(f"pictures must be uint8 (B, 3, H, W), not {images.dtype} {tuple(images.shape)}")
        size, (height, width) = self.image_size, images.shape[-2:]
        short = min(height, width)
        if short != size:
            target = [size if side == short else int(size * side / short) for side in (height, width)]
            images = F.interpolate(images, target, mode="bicubic", antialias=True, align_corners=False)
        top, left = (round((side - size) / 2) for side in images.shape[-2:])
        images = images[..., top : top + size, left : left + size]
        return (images.float() / 255 - self.mean) / self.std

    @torch.no_grad()
    def encode_texts(self, texts: list[str], batch_size: int = 256) -> Tensor:
        """L2-normalised float32 embeddings (B, embed_dim); texts longer than the context are cut."""
        context = self.model.context_length
        tokens = torch.zeros(len(texts), context, dtype=torch.long)
        for k, row in enumerate(self.tokenizer(texts, truncation=False, verbose=False)["input_ids"]):
            row = row if len(row) <= context else [*row[: context - 1], row[-1]]
            tokens[k, : len(row)] = torch.tensor(row)
        encoded = [
            self.model.encode_text(chunk.to(self.device)).float() for chunk in tokens.split(batch_size)
        ]
        return F.normalize(torch.cat(encoded), dim=-1).cpu()


def load_clip(component: Component) -> ClipScorer:
    """A CLIP in OpenAI's format: model.safetensors, vocab.json, merges.txt and preprocessor_config.json."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # clip-anytorch's pkg_resources announces its own end
        from clip.model import build_model

    folder = component_folder(component, "clip")
    require_file(folder, WEIGHTS, f"a CLIP's {WEIGHTS} in OpenAI's format")
    require_file(
        folder, "preprocessor_config.json", "a CLIP's preprocessor_config.json (image_mean, image_std)"
    )
    if not is_openai(folder):
        raise ValueError(
            f"{folder / WEIGHTS} is no CLIP in OpenAI's format: it has no token_embedding.weight"
        )
    state = read_weights(folder)
    model = build_model(dict(state)).float()
    # build_model rounds to float16 on its way.
    model.load_state_dict({k: v for k, v in state.items() if k in model.state_dict()})
    preprocessor = json.loads((folder / "preprocessor_config.json").read_text())
    size = preprocessor.get("crop_size", model.visual.input_resolution)
    size = size["height"] if isinstance(size, dict) else size
    if size != model.visual.input_resolution:
        raise ValueError(
            f"preprocessor_config.json crops to {size} pixels; the weights take {model.visual.input_resolution}"
        )
    return ClipScorer(
        model.eval().requires_grad_(False),
        load_tokenizer(folder),
        preprocessor["image_mean"],
        preprocessor["image_std"],
    )


def _picture_tensor(image: Any) -> Tensor:
    """A PIL picture or uint8 (H, W, 3) array -> uint8 (1, 3, H, W)."""
    array = image if isinstance(image, np.ndarray) else np.asarray(image.convert("RGB"))
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)[None]


def require_file(folder: Path, name: str, what: str) -> None:
    """Refuse a component's folder that lacks a file."""
    if not (folder / name).is_file():
        raise ValueError(f"{folder} has no {name}: {what} belongs there")


def is_openai(folder: Path) -> bool:
    """Whether a folder's weights are a CLIP's under OpenAI's names."""
    from safetensors import safe_open

    with safe_open(folder / WEIGHTS, framework="pt") as file:
        return "token_embedding.weight" in file.keys()  # noqa: SIM118 (safe_open is no mapping)


def read_weights(folder: Path) -> dict[str, Tensor]:
    """A folder's weights by name, in float32."""
    from safetensors.torch import load_file

    return {name: tensor.float() for name, tensor in load_file(folder / WEIGHTS).items()}


def moved(module: Any, device: torch.device) -> Any:
    """`module.to(device)`, whose type diffusers' and transformers' decorators hide from type checkers."""
    return module.to(device)
