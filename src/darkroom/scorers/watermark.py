"""How likely a picture bears a watermark, which a model learns to draw. `pwatermark` is what lists call it."""

from darkroom.scorers.classifier import WithClassifier, classifier_scorer


class Watermark(WithClassifier):
    """`watermark`: how likely the picture bears a watermark, 0 to 1, by an image classifier."""


SPEC = classifier_scorer("watermark", Watermark)
