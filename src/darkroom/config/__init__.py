"""Closed, typed configuration: the one source of every option's name, default, unit and doc."""
