"""What writes captions of captions, one file each; `rewriters.table` brings them together."""
