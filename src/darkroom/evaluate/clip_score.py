"""CLIPScore: how well pictures fit their prompts (Hessel et al., arXiv 2104.08718).

100 times the cosine, no prefix before the prompt, each picture's score clamped at 0. Numbers of different
CLIPs, scales or prefixes do not compare: record the model beside the score.
"""

import numpy as np


def clip_scores(images: np.ndarray, texts: np.ndarray) -> np.ndarray:
    """100 max(cos, 0) of every picture and its prompt: float64, (pictures,).

    Args:
        images, texts: embeddings, float, (pictures, dimensions); normalised here.

    Raises:
        ValueError: there are not as many texts as pictures.
    """
    if images.shape != texts.shape:
        raise ValueError(f"picture embeddings are {images.shape}, text embeddings {texts.shape}")
    cosines = (_unit(images) * _unit(texts)).sum(axis=1)
    return 100 * np.maximum(cosines, 0)


def _unit(vectors: np.ndarray) -> np.ndarray:
    vectors = vectors.astype(np.float64)
    return vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-12)
