"""Manners of a crawler: what servers and pictures ask for, and how often a host is asked."""
