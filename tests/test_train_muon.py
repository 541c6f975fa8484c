"""Muon equals torch's to the bit where that computes in the same dtype, and serves float32 as well."""

import pytest
import torch
from torch import nn

from darkroom.train.muon import Muon, orthogonal

SHAPES = [(8, 8), (24, 8), (8, 24), (1, 5), (5, 1)]


def matrices() -> list[nn.Parameter]:
    source = torch.Generator().manual_seed(0)
    return [nn.Parameter(torch.randn(shape, generator=source)) for shape in SHAPES]


def trained(
    optimizer: torch.optim.Optimizer, params: list[nn.Parameter], steps: int = 5
) -> list[torch.Tensor]:
    source = torch.Generator().manual_seed(1)
    for step in range(steps):
        for p in params:
            p.grad = torch.randn(p.shape, generator=source)
        params[0].grad = None if step == 2 else params[0].grad
        optimizer.step()
    return [p.detach() for p in params]


def test_in_bfloat16_it_is_torchs_to_the_bit() -> None:
    ours, theirs = matrices(), matrices()
    found = trained(Muon(ours, lr=0.02, weight_decay=0.1, dtype=torch.bfloat16), ours)
    expected = trained(torch.optim.Muon(theirs, lr=0.02, weight_decay=0.1), theirs)
    for one, other in zip(found, expected, strict=True):
        assert torch.equal(one, other)


@pytest.mark.parametrize("shape", [(16, 16), (40, 12), (12, 40)])
def test_in_float32_updates_are_orthogonal_as_far_as_five_iterations_bring_them(
    shape: tuple[int, int],
) -> None:
    matrix = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    before = matrix.clone()
    found = orthogonal(matrix, torch.float32)
    assert found.dtype == torch.float32 and torch.equal(matrix, before)
    u, _, v = torch.linalg.svd(matrix, full_matrices=False)
    inner = u.T @ found @ v.T
    assert inner.diag().min() > 0.6 and inner.diag().max() < 1.3
    assert (inner - inner.diag().diag()).abs().max() < 1e-4


def test_what_is_no_matrix_is_refused() -> None:
    with pytest.raises(ValueError, match=r"not a parameter of shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1, weight_decay=0.0, dtype=torch.float32)


def test_a_kernel_is_updated_as_the_matrix_of_its_output_channels() -> None:
    flat = nn.Parameter(torch.randn(6, 27, generator=torch.Generator().manual_seed(0)))
    kernel = nn.Parameter(flat.detach().clone().reshape(6, 3, 3, 3))
    for p in (flat, kernel):
        p.grad = torch.arange(162, dtype=torch.float32).reshape(p.shape)
        Muon([p], lr=0.1, weight_decay=0.01, dtype=torch.float32).step()
    assert torch.equal(kernel.reshape(6, 27), flat)
