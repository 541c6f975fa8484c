"""Mean and covariance of real pictures' features in a file, as pytorch-fid and clean-fid write them."""

import zipfile
from pathlib import Path

import numpy as np

from darkroom.metrics import gaussians
from darkroom.metrics.references import Statistics
from darkroom.store import sha256_file

_MAX_BYTES = 1_000_000_000


def read_statistics(path: str | Path) -> Statistics:
    """A .npz with `mu` (dimensions,) and `sigma` (dimensions, dimensions). Nothing is unpickled.

    Raises:
        ValueError: it is no such file, or they are no mean and covariance; names it.
    """
    path = Path(path)
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(member.file_size for member in archive.infolist())
        if size > _MAX_BYTES:
            raise ValueError(f"unpacks to {size:,} bytes, more than {_MAX_BYTES:,}")
        with np.load(path, allow_pickle=False) as arrays:
            if missing := {"mu", "sigma"} - set(arrays.files):
                raise ValueError(
                    f"has no {' and no '.join(sorted(missing))}; it has {', '.join(arrays.files)}"
                )
            gaussian = gaussians.from_statistics(arrays["mu"], arrays["sigma"])
    except (ValueError, TypeError, OSError, EOFError, zipfile.BadZipFile) as error:
        raise ValueError(
            f"{path}: {error}; reference statistics are a .npz with mu and sigma, as pytorch-fid writes it"
        ) from None
    return Statistics(gaussian, sha256_file(path))
