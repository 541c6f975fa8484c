"""Score: what a dataset's scorers say of every row, a file for each scorer and part."""

from darkroom.score.stage import Asked, Counts, gather, score_dataset, score_in_one_pass, score_part

# Raised by whoever changes what the stage writes, whatever the scorer; a scorer has a version of its own.
VERSION = 1

__all__ = ["VERSION", "Asked", "Counts", "gather", "score_dataset", "score_in_one_pass", "score_part"]
