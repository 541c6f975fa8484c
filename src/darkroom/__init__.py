"""From a list of URLs to an evaluated text-to-image model, every step resumable and checkable."""
