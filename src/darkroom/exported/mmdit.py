"""MMDiT: a diffusion transformer with one stream for image tokens and one for text tokens.

The architecture is that of Stable Diffusion 3 (Esser et al. 2024, arXiv 2403.03206): each block lets the two
streams attend to each other and modulates them by the timestep and the pooled text (adaLN-Zero, Peebles & Xie
2022, arXiv 2212.09748). Different from SD3: axial 2-D RoPE on image tokens instead of a position table, so no
size is fixed, padded text is masked out, and each text encoder's tokens have a norm and a projection of their own
and follow one another. By option: SwiGLU (Shazeer 2020, arXiv 2002.05202), added sinusoids or no positions,
positions that are interpolated at a higher resolution, and learned scales of text and time.

This file imports torch and diffusers alone: it is copied into exported model folders as it is.

Shapes: B batch, C latent channels, H x W latent size, N = (H / p)(W / p) image tokens with patch size p, L text
tokens, D width = num_heads x head_dim.
"""

import math
from collections.abc import Callable, Sequence
from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.loaders.peft import PeftAdapterMixin
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

TIMESTEP_CHANNELS = 256
TIMESTEP_SCALE = 1000.0
NORM_EPS = 1e-6
MAX_EXPLICIT_TOKENS = 512  # up to so many, training on CPU keeps the attention matrix


def timestep_sinusoid(
    timestep: Tensor, num_channels: int = TIMESTEP_CHANNELS, scale: float | Tensor = TIMESTEP_SCALE
) -> Tensor:
    """(B,) timesteps in [0, 1] -> (B, num_channels) cosines and sines of scale t, periods 2 pi to 2 pi 10^4."""
    half = num_channels // 2
    exponent = torch.arange(half, dtype=torch.float32, device=timestep.device) / half
    angle = scale * timestep.float()[:, None] * torch.exp(-math.log(10_000) * exponent)
    return torch.cat([angle.cos(), angle.sin()], dim=-1)


def axial_angles(
    rows: int, columns: int, num_channels: int, theta: float, interpolation: float, device: torch.device
) -> Tensor:
    """(N, num_channels / 2) angles of each image token: the first half by its row, the second by its column.

    Positions are divided by `interpolation` (Chen et al. 2023, arXiv 2306.15595): 2 at twice the side trained on.
    """
    quarter = num_channels // 4
    frequency = theta ** (-torch.arange(quarter, dtype=torch.float32, device=device) / quarter)
    row = torch.arange(rows, dtype=torch.float32, device=device)[:, None, None] / interpolation * frequency
    column = (
        torch.arange(columns, dtype=torch.float32, device=device)[None, :, None] / interpolation * frequency
    )
    return torch.cat([row.expand(-1, columns, -1), column.expand(rows, -1, -1)], dim=-1).flatten(0, 1)


def axial_rope(angle: Tensor) -> tuple[Tensor, Tensor]:
    """Cosines and signed sines (N, head_dim) of axial rotary embeddings (Su et al. 2021, arXiv 2104.09864).

    Channel pairs (i, i + head_dim / 2) rotate by angle (N, head_dim / 2). The sines of the pairs' first channels
    are negated, as `rotate` needs.
    """
    return angle.cos().repeat(1, 2), torch.cat([-angle.sin(), angle.sin()], dim=-1)


def rotate(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    """Rotate channel pairs (i, i + head_dim / 2) of x (..., N, head_dim) by the angles of `axial_rope`."""
    return torch.addcmul(x * cos, x.roll(x.shape[-1] // 2, dims=-1), sin)


class RMSNorm(nn.Module):
    """x / sqrt(mean(x^2) + eps) * weight over the last dimension; the mean is taken in float32."""

    def __init__(self, num_channels: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(num_channels))

    def forward(self, x: Tensor) -> Tensor:
        # F.rms_norm on CPU is half as fast: it is no single kernel there.
        scale = torch.rsqrt(x.float().square().mean(dim=-1, keepdim=True) + NORM_EPS)
        return x * scale.to(x.dtype) * self.weight.to(x.dtype)


def attention(query: Tensor, key: Tensor, value: Tensor, mask: Tensor | None) -> Tensor:
    """Scaled dot-product attention over (B, heads, tokens, head_dim); mask (B, 1, 1, tokens), True if attended."""
    if query.device.type != "cpu" or not torch.is_grad_enabled() or key.shape[-2] > MAX_EXPLICIT_TOKENS:
        return F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
    # torch's fused attention is slow backwards on CPU: 5 times this at 88 tokens in bfloat16.
    logits = (query * query.shape[-1] ** -0.5) @ key.transpose(-1, -2)
    if mask is not None:
        logits = logits.masked_fill(~mask, float("-inf"))
    return logits.softmax(dim=-1) @ value


class Stream(nn.Module):
    """One stream's own weights in a block: modulation, attention projections and MLP.

    A text stream with `is_last` gives keys and values only: nothing after it reads its tokens.
    """

    def __init__(self, width: int, head_dim: int, mlp_ratio: float, is_last: bool, is_gated: bool):
        super().__init__()
        self.head_dim = head_dim
        self.is_last = is_last
        self.modulation = nn.Linear(width, (2 if is_last else 6) * width)
        self.qkv = nn.Linear(width, (2 if is_last else 3) * width)
        self.query_norm = None if is_last else RMSNorm(head_dim)
        self.key_norm = RMSNorm(head_dim)
        self.mlp_gate: nn.Linear | None = None
        if not is_last:
            hidden = int(width * mlp_ratio)
            self.attention_out = nn.Linear(width, width)
            self.mlp_in = nn.Linear(width, hidden)
            self.mlp_gate = nn.Linear(width, hidden) if is_gated else None
            self.mlp_out = nn.Linear(hidden, width)

    def modulate(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """adaLN: LayerNorm without weights, then scale and shift (B, 1, D) from the conditioning."""
        return torch.addcmul(shift, F.layer_norm(x, x.shape[-1:], eps=NORM_EPS), scale + 1)

    def heads(self, x: Tensor, shift: Tensor, scale: Tensor) -> list[Tensor]:
        """Tokens (B, N, D) -> normalised [query,] key and value, each (B, heads, N, head_dim)."""
        projected = self.qkv(self.modulate(x, shift, scale))
        num_heads = x.shape[-1] // self.head_dim
        *query, key, value = projected.unflatten(-1, (-1, num_heads, self.head_dim)).unbind(2)
        if self.query_norm is not None:
            query = [self.query_norm(query[0])]
        return [h.transpose(1, 2) for h in (*query, self.key_norm(key), value)]

    def mlp(self, x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
        """Tokens (B, N, D) -> (B, N, D), without the residual."""
        x = self.modulate(x, shift, scale)
        if self.mlp_gate is not None:
            return self.mlp_out(F.silu(self.mlp_gate(x)) * self.mlp_in(x))
        # The exact GELU: on CPU in bfloat16, SD3's tanh form of it takes four times as long.
        return self.mlp_out(F.gelu(self.mlp_in(x)))


class JointBlock(nn.Module):
    """Both streams attend to the tokens of both; each has weights of its own.

    attend: the attention operator, see `attention`. checkpoint_attention, checkpoint_mlp: compute that part again
    in the backward pass. All three may be set on a finished model.
    """

    def __init__(self, width: int, head_dim: int, mlp_ratio: float, is_last: bool, is_gated: bool):
        super().__init__()
        self.image = Stream(width, head_dim, mlp_ratio, False, is_gated)
        self.text = Stream(width, head_dim, mlp_ratio, is_last, is_gated)
        self.attend: Callable[[Tensor, Tensor, Tensor, Tensor | None], Tensor] = attention
        self.checkpoint_attention = self.checkpoint_mlp = False

    def forward(
        self,
        image: Tensor,
        text: Tensor,
        condition: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
    ) -> tuple[Tensor, Tensor]:
        """image (B, N, D), text (B, L, D), condition (B, 1, D), mask (B, 1, 1, L + N) -> both streams' tokens."""
        of_image = self.image.modulation(condition).chunk(6, dim=-1)
        of_text = self.text.modulation(condition).chunk(2 if self.text.is_last else 6, dim=-1)
        attended = self._maybe_again(
            self.checkpoint_attention, self.attended, image, text, *of_image[:2], *of_text[:2], rope, mask
        )
        if self.text.is_last:
            return self.update(self.image, image, attended, of_image[2:]), text
        text_attended, image_attended = attended.split([text.shape[1], image.shape[1]], dim=1)
        return (
            self.update(self.image, image, image_attended, of_image[2:]),
            self.update(self.text, text, text_attended, of_text[2:]),
        )

    def attended(
        self,
        image: Tensor,
        text: Tensor,
        image_shift: Tensor,
        image_scale: Tensor,
        text_shift: Tensor,
        text_scale: Tensor,
        rope: tuple[Tensor, Tensor] | None,
        mask: Tensor | None,
    ) -> Tensor:
        """What the tokens (B, L + N, D) gather from each other; (B, N, D) where text gives no queries."""
        query, key, value = self.image.heads(image, image_shift, image_scale)
        if rope is not None:
            query, key = rotate(query, *rope), rotate(key, *rope)
        *text_query, text_key, text_value = self.text.heads(text, text_shift, text_scale)
        gathered = self.attend(
            torch.cat([*text_query, query], dim=2),
            torch.cat([text_key, key], dim=2),
            torch.cat([text_value, value], dim=2),
            mask,
        )
        return gathered.transpose(1, 2).flatten(2)

    def update(self, stream: Stream, x: Tensor, attended: Tensor, modulation: tuple[Tensor, ...]) -> Tensor:
        """Gated residuals of the attention's output and of the MLP."""
        gate_attention, shift, scale, gate_mlp = modulation
        x = torch.addcmul(x, gate_attention, stream.attention_out(attended))
        return torch.addcmul(x, gate_mlp, self._maybe_again(self.checkpoint_mlp, stream.mlp, x, shift, scale))

    @staticmethod
    def _maybe_again(is_on: bool, function: Callable[..., Tensor], *arguments) -> Tensor:
        if is_on and torch.is_grad_enabled():
            return checkpoint(function, *arguments, use_reentrant=False)  # type: ignore[return-value]
        return function(*arguments)


class MMDiT(ModelMixin, ConfigMixin, PeftAdapterMixin):  # type: ignore[misc]
    """Velocity of a noisy latent, given a timestep and a caption.

    Args:
        in_channels: latent channels C.
        num_blocks, num_heads, head_dim: depth, and width D = num_heads x head_dim (head_dim a multiple of 4).
        patch_size: latent pixels a token, per side.
        mlp_ratio: hidden width of the MLP / width.
        text_dim: channels of the text tokens; several where several encoders give them.
        pooled_dim: channels of the pooled text embedding; 0 where there is none.
        rope_theta: longest period of the rotary embedding / (2 pi tokens).
        mlp: its form.
        positions: how image tokens know their place; "absolute" adds sinusoids to them.
        position_interpolation: positions are divided by this, see `axial_angles`.
        text_scale: initial value of a learned scale of each encoder's normalised tokens; None is none.
        learned_time_scale: learn the factor of the timestep before its sinusoids, from 1000.
    """

    _supports_gradient_checkpointing = True
    _no_split_modules = ["JointBlock"]  # type: ignore[assignment]

    @register_to_config
    def __init__(
        self,
        in_channels: int,
        num_blocks: int,
        num_heads: int,
        head_dim: int,
        patch_size: int,
        mlp_ratio: float,
        text_dim: int | Sequence[int],
        pooled_dim: int,
        rope_theta: float = 10_000.0,
        mlp: Literal["gelu", "swiglu"] = "gelu",
        positions: Literal["rope", "absolute", "none"] = "rope",
        position_interpolation: float = 1.0,
        text_scale: float | None = None,
        learned_time_scale: bool = False,
    ):
        super().__init__()
        if head_dim % 4:
            raise ValueError(f"head_dim {head_dim} is no multiple of 4, as 2-D RoPE needs")
        self.in_channels, self.patch_size = in_channels, patch_size
        self.head_dim, self.rope_theta = head_dim, rope_theta
        self.positions, self.position_interpolation = positions, position_interpolation
        width = num_heads * head_dim
        patch_channels = in_channels * patch_size**2
        self.image_in = nn.Linear(patch_channels, width)
        dims = [text_dim] if isinstance(text_dim, int) else list(text_dim)
        norms, projections = [RMSNorm(dim) for dim in dims], [nn.Linear(dim, width) for dim in dims]
        is_one = isinstance(text_dim, int)
        self.text_norm: nn.Module = norms[0] if is_one else nn.ModuleList(norms)
        self.text_in: nn.Module = projections[0] if is_one else nn.ModuleList(projections)
        self.timestep_in = nn.Sequential(
            nn.Linear(TIMESTEP_CHANNELS, width), nn.SiLU(), nn.Linear(width, width)
        )
        self.pooled_in = None
        if pooled_dim:
            self.pooled_in = nn.Sequential(nn.Linear(pooled_dim, width), nn.SiLU(), nn.Linear(width, width))
        self.blocks = nn.ModuleList(
            JointBlock(width, head_dim, mlp_ratio, is_last=i == num_blocks - 1, is_gated=mlp == "swiglu")
            for i in range(num_blocks)
        )
        self.modulation_out = nn.Linear(width, 2 * width)
        self.image_out = nn.Linear(width, patch_channels)
        self.text_scales: nn.Parameter | None = None
        if text_scale is not None:
            self.text_scales = nn.Parameter(torch.full((len(dims),), text_scale))
        self.time_scale = nn.Parameter(torch.full((1,), TIMESTEP_SCALE)) if learned_time_scale else None
        self.gradient_checkpointing = False
        self.reset_parameters()

    def reset_parameters(self) -> None:
        """DiT's initial values: Xavier weights, zero biases; gates and the output zero, so the velocity is 0."""
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)
        for name, parameter in self.named_parameters():
            if name.startswith(("timestep_in", "pooled_in")) and name.endswith("weight"):
                nn.init.normal_(parameter, std=0.02)
            elif "modulation" in name or name.startswith("image_out"):
                nn.init.zeros_(parameter)

    def forward(
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor | Sequence[Tensor],
        text_mask: Tensor | Sequence[Tensor | None] | None,
        pooled: Tensor | None,
    ) -> Tensor:
        """The velocity d z_t / d t = noise - latents of z_t = (1 - t) latents + t noise.

        Args:
            latents: (B, C, H, W); H and W any multiples of patch_size.
            timestep: (B,) in [0, 1]; 1 is pure noise.
            text: (B, L, text_dim) hidden states of the caption's tokens; of several encoders, one of each.
            text_mask: (B, L) bool, False on padding, for each text; None where nothing is padded.
            pooled: (B, pooled_dim).
        Returns:
            (B, C, H, W), of the latents' type.
        Raises:
            ValueError: when a side is no multiple of the patch size.
        """
        patch = self.patch_size
        height, width = latents.shape[-2:]
        if height % patch or width % patch:
            raise ValueError(
                f"latents of {height} x {width}: sides must be multiples of the patch size {patch}"
            )
        rows, columns = height // patch, width // patch
        dtype = self.image_in.weight.dtype
        image = self.image_in(self.patchify(latents.to(dtype)))
        tokens, tokens_mask = self.embed_text(text, text_mask, dtype)
        time_scale = TIMESTEP_SCALE if self.time_scale is None else self.time_scale
        condition = self.timestep_in(timestep_sinusoid(timestep, scale=time_scale).to(dtype))
        if self.pooled_in is not None and pooled is not None:
            condition = condition + self.pooled_in(pooled.to(dtype))
        condition = F.silu(condition)[:, None]
        image, rope = self.place(image, rows, columns)
        mask = self.attention_mask(tokens_mask, image.shape[1])
        for block in self.blocks:
            if torch.is_grad_enabled() and self.gradient_checkpointing:
                image, tokens = checkpoint(block, image, tokens, condition, rope, mask, use_reentrant=False)
            else:
                image, tokens = block(image, tokens, condition, rope, mask)
        shift, scale = self.modulation_out(condition).chunk(2, dim=-1)
        image = torch.addcmul(shift, F.layer_norm(image, image.shape[-1:], eps=NORM_EPS), scale + 1)
        return self.unpatchify(self.image_out(image), rows, columns).to(latents.dtype)

    def embed_text(
        self,
        text: Tensor | Sequence[Tensor],
        text_mask: Tensor | Sequence[Tensor | None] | None,
        dtype: torch.dtype,
    ) -> tuple[Tensor, Tensor | None]:
        """The encoders' tokens, each normalised and projected, one after another: (B, L, D) and mask (B, L)."""
        texts = [text] if isinstance(text, Tensor) else list(text)
        masks = [text_mask] if isinstance(text_mask, Tensor) else list(text_mask or [None] * len(texts))
        several = (m if isinstance(m, nn.ModuleList) else [m] for m in (self.text_norm, self.text_in))
        embedded = []
        for i, (norm, project, tokens) in enumerate(zip(*several, texts, strict=True)):
            tokens = norm(tokens.to(dtype))
            if self.text_scales is not None:
                tokens = tokens * self.text_scales[i].to(dtype)
            embedded.append(project(tokens))
        if len(texts) == 1 or all(mask is None for mask in masks):
            return torch.cat(embedded, dim=1), masks[0]
        ones = [t.new_ones(t.shape[:2], dtype=torch.bool) for t in texts]
        whole = [all_real if mask is None else mask for all_real, mask in zip(ones, masks, strict=True)]
        return torch.cat(embedded, dim=1), torch.cat(whole, dim=1)

    def place(self, image: Tensor, rows: int, columns: int) -> tuple[Tensor, tuple[Tensor, Tensor] | None]:
        """Image tokens (B, N, D) and the rotations that tell their places, by the model's kind of positions."""
        if self.positions == "none":
            return image, None
        num_channels = self.head_dim if self.positions == "rope" else image.shape[-1]
        angle = axial_angles(
            rows, columns, num_channels, self.rope_theta, self.position_interpolation, image.device
        )
        if self.positions == "absolute":
            return image + torch.cat([angle.sin(), angle.cos()], dim=-1).to(image.dtype), None
        cos, sin = axial_rope(angle)
        return image, (cos.to(image.dtype), sin.to(image.dtype))

    def patchify(self, latents: Tensor) -> Tensor:
        """(B, C, H, W) -> (B, N, C p p), tokens row by row."""
        batch, channels, height, width = latents.shape
        patch = self.patch_size
        x = latents.reshape(batch, channels, height // patch, patch, width // patch, patch)
        return x.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, channels * patch**2)

    def unpatchify(self, tokens: Tensor, rows: int, columns: int) -> Tensor:
        """(B, N, C p p) -> (B, C, H, W), the inverse of `patchify`."""
        patch, channels = self.patch_size, self.in_channels
        x = tokens.reshape(-1, rows, columns, channels, patch, patch).permute(0, 3, 1, 4, 2, 5)
        return x.reshape(-1, channels, rows * patch, columns * patch)

    @staticmethod
    def attention_mask(text_mask: Tensor | None, num_image_tokens: int) -> Tensor | None:
        """(B, L) -> (B, 1, 1, L + N), True where attended; None (faster) where no text is padded."""
        # Asking a GPU whether all are true would stall it: there, callers pass None themselves.
        if text_mask is None or (text_mask.device.type == "cpu" and bool(text_mask.all())):
            return None
        return F.pad(text_mask, (0, num_image_tokens), value=True)[:, None, None]
