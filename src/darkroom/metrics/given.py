"""torchmetrics' feature extractor where there is nothing left to extract."""

import torch


class Given(torch.nn.Module):
    """Takes features for pictures."""

    def __init__(self, num_features: int) -> None:
        super().__init__()
        self.num_features = num_features

    def forward(self, features: torch.Tensor) -> torch.Tensor:
        return features
