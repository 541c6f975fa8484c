"""How far a score can be trusted: a sample that a person labels, and what follows for every threshold."""
