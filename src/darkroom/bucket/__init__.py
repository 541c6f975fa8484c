"""Aspect-ratio buckets: which few shapes there are, and which one each kept picture gets."""

from darkroom.bucket.shapes import Assignment, assign, make_buckets
from darkroom.bucket.stage import bucket_part, summarise

# Raised by whoever changes what the stage writes: results of the version before are then made again.
VERSION = 1

__all__ = ["VERSION", "Assignment", "assign", "bucket_part", "make_buckets", "summarise"]
