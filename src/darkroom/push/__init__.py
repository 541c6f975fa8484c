"""`darkroom push`: a finished run's model in a repository of Hugging Face, with a card made from its manifests."""
