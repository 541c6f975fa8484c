"""How the demo world's components were pretrained, each in minutes on a CPU: a VAE, a CLIP, a captioner and a
judge of watermarks."""

from pathlib import Path
from typing import Any

COMPONENTS = ("vae", "clip", "captioner", "watermark")


def train_all(out: str | Path, only: str = "", num_threads: int = 1) -> dict[str, dict[str, float]]:
    """Train the components from scratch into `out`/vae, `out`/clip and so on.

    Args:
        out: a folder; what lies there under these names is replaced.
        only: one of COMPONENTS; all of them when empty.
        num_threads: CPU threads; another number gives other low bits.

    Returns:
        Component -> what was measured on it.

    Raises:
        ValueError: `only` is no component.
    """
    if only and only not in COMPONENTS:
        raise ValueError(f"only {only!r}: it should be one of {', '.join(COMPONENTS)}")
    from darkroom_demo.pretrain.captioner import train_captioner
    from darkroom_demo.pretrain.clip import train_clip
    from darkroom_demo.pretrain.vae import train_vae
    from darkroom_demo.pretrain.watermark import train_watermark

    trainers: dict[str, Any] = {
        "vae": train_vae,
        "clip": train_clip,
        "captioner": train_captioner,
        "watermark": train_watermark,
    }
    chosen = [only] if only else COMPONENTS
    return {name: trainers[name](Path(out) / name, threads=num_threads) for name in chosen}
