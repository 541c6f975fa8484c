"""The detector on what the demo's VAE makes of pictures: the best that a model behind it can draw."""

from pathlib import Path

import cv2
import numpy as np
import torch

from darkroom.config.components import Component
from darkroom.demo.prompts import scene_record
from darkroom.demo.render import render
from darkroom.demo.scenes import TASKS, sample_scene
from darkroom.evaluate import detector
from darkroom.evaluate.geneval import judge, summarise
from darkroom.models.components import load_vae

VAE = Path(__file__).parents[1] / "src/darkroom/demo/components/vae"


@torch.no_grad()
def test_reconstructed_scenes_are_judged_right():
    vae = load_vae(Component(kind="vae", path=str(VAE)))
    rng = np.random.default_rng(12)
    scenes = []
    while len(scenes) < 120:
        scene = sample_scene(rng, task=TASKS[len(scenes) % len(TASKS)], held_out=None)
        scenes += [scene] if scene.width == scene.height else []
    pictures = [cv2.resize(render(s), (64, 64), interpolation=cv2.INTER_AREA) for s in scenes]
    inputs = torch.from_numpy(np.stack(pictures)).permute(0, 3, 1, 2) / 127.5 - 1
    decoded = vae.decode(vae.encode(inputs).latent_dist.mean).sample.clamp(-1, 1)
    seen = ((decoded + 1) * 127.5).round().to(torch.uint8).permute(0, 2, 3, 1).numpy()
    results = [
        (s.task, judge(p, detector.detect(p), scene_record(s), detector.classify_color).correct)
        for s, p in zip(scenes, seen, strict=True)
    ]
    assert summarise(results)["overall"] >= 0.97


@torch.no_grad()
def test_decoded_noise_shows_next_to_nothing():
    vae = load_vae(Component(kind="vae", path=str(VAE)))
    shape = (48, vae.config.latent_channels, 4, 4)
    noise = torch.randn(shape, generator=torch.Generator().manual_seed(0))
    latents = noise / vae.config.scaling_factor + (vae.config.shift_factor or 0)
    decoded = ((vae.decode(latents).sample.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8)
    seen = [detector.detect(p) for p in decoded.permute(0, 2, 3, 1).numpy()]
    assert sum(any(d.score > 0.3 for d in found) for found in seen) <= 4
