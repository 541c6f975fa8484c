"""What sections of the configuration are made of: every kind and every stage may import it, and it imports none.

The whole configuration, with unions made from the tables of kinds, is `darkroom.config`.
"""
