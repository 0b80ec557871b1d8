"""Studies of generation: the stand-in feature network, code sequences by length policies, and video distances."""
