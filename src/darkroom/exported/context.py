"""Longer prompts for SD3: a trained module on the T5 tokens beyond a prompt's first ones.

SD3's transformer has no positions on text, so it reads T5 tokens of any number; what comes after the tokens that
it was trained with is new to it. Two forms:

    residual  token + MLP(RMSNorm(token)), whose last layer starts at zero: at step 0 the base model, bit for bit.
    mlp       PixelProse-PowerUp's ContextWindowMLP: Linear, ReLU, Linear, weights from N(0, 0.01^2), in place of
              the token; its output fills the first hidden_dim channels and the rest is zero.

This file imports torch and diffusers alone: it is copied into exported model folders as it is.
"""

from typing import Literal

import torch
import torch.nn.functional as F
from diffusers.configuration_utils import ConfigMixin, register_to_config
from diffusers.models.modeling_utils import ModelMixin
from torch import Tensor, nn

NORM_EPS = 1e-6


class ContextExtension(ModelMixin, ConfigMixin):  # type: ignore[misc]
    """T5 hidden states (B, L, text_dim) -> the same, those beyond the first num_base_tokens changed.

    Args:
        text_dim: channels of T5's hidden states.
        hidden_dim: width of the hidden layer, and of the mlp form's output (text_dim at most).
        num_base_tokens: tokens that pass unchanged.
        form: see above.
    """

    @register_to_config
    def __init__(
        self,
        text_dim: int,
        hidden_dim: int,
        num_base_tokens: int = 77,
        form: Literal["residual", "mlp"] = "residual",
    ):
        super().__init__()
        self.num_base_tokens, self.form = num_base_tokens, form
        if form == "mlp" and hidden_dim > text_dim:
            raise ValueError(f"hidden_dim {hidden_dim} of the mlp form is more than T5's {text_dim} channels")
        out_dim = text_dim if form == "residual" else hidden_dim
        self.norm_weight = nn.Parameter(torch.ones(text_dim)) if form == "residual" else None
        self.mlp_in = nn.Linear(text_dim, hidden_dim)
        self.mlp_out = nn.Linear(hidden_dim, out_dim)
        if form == "residual":
            nn.init.zeros_(self.mlp_out.weight)
        else:
            for linear in (self.mlp_in, self.mlp_out):
                nn.init.normal_(linear.weight, std=0.01)
                nn.init.zeros_(linear.bias)
        nn.init.zeros_(self.mlp_out.bias)

    def forward(self, t5: Tensor) -> Tensor:
        """(B, L, text_dim) -> (B, L, text_dim), of the same type."""
        if t5.shape[1] <= self.num_base_tokens:
            return t5
        base, beyond = t5[:, : self.num_base_tokens], t5[:, self.num_base_tokens :]
        if self.form == "residual":
            scale = torch.rsqrt(beyond.float().square().mean(dim=-1, keepdim=True) + NORM_EPS)
            assert self.norm_weight is not None
            normed = (beyond * scale * self.norm_weight).to(self.mlp_in.weight.dtype)
            beyond = beyond + self.mlp_out(F.gelu(self.mlp_in(normed)))
        else:
            hidden = F.relu(self.mlp_in(beyond.to(self.mlp_in.weight.dtype)))
            out = self.mlp_out(hidden)
            beyond = F.pad(out, (0, t5.shape[-1] - out.shape[-1]))
        return torch.cat([base, beyond.to(t5.dtype)], dim=1)
