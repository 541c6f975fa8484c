"""The captioners that write a dataset's captions, one file each; `captioners.table` brings them together."""
