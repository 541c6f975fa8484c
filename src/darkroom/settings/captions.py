"""What captions are called."""

# The alt-text, which every picture has beside the captions that were generated.
ORIGINAL = "original"
