"""How the demo world's components were pretrained: a VAE, a CLIP and a captioner, each in minutes on a CPU."""
