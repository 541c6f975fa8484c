"""How far two results of the same sums may lie apart: processors and batch sizes add in different orders."""

import torch


def assert_same_sums(
    found: torch.Tensor, expected: torch.Tensor, num_summands: int, computed_in: torch.dtype = torch.float32
) -> None:
    """Fail where two tensors differ by more than the order of summation explains.

    A sum of n numbers differs between any two orders by at most about n times the unit roundoff times the sum
    of their magnitudes (Higham, Accuracy and Stability of Numerical Algorithms, section 4.2), here taken
    relative to the largest magnitude in the tensor, which later layers carry on. Numbers that are stored in a
    coarser type than they were computed in may fall to neighbouring ones of it besides.
    """
    assert found.dtype == expected.dtype and found.shape == expected.shape
    largest = float(expected.abs().max()) if expected.numel() else 0.0
    sums = num_summands * torch.finfo(computed_in).eps * largest
    stored = torch.finfo(expected.dtype).eps if expected.dtype != computed_in else 0.0
    torch.testing.assert_close(found, expected, rtol=stored, atol=sums)
