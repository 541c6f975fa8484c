"""Perceptual distances that an autoencoder is trained and judged by: a file for each kind."""
