"""Aspect-ratio buckets: which few shapes there are, and which one each kept picture gets."""

from darkroom.bucket.shapes import Assignment, assign, make_buckets
from darkroom.bucket.stage import bucket_part, summarise

__all__ = ["Assignment", "assign", "bucket_part", "make_buckets", "summarise"]
