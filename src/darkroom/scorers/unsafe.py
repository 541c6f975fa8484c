"""How likely a picture is unsafe: nudity, or whatever the classes of the model are; lists call it `punsafe`."""

from darkroom.scorers.classifier import WithClassifier, classifier_scorer


class Unsafe(WithClassifier):
    """`unsafe`: how likely the picture is of an unsafe class, 0 to 1, by an image classifier."""


SPEC = classifier_scorer("unsafe", Unsafe)
