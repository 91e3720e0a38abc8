"""Bottlerocket: the bootstrap starts in the control container, and the program works from another host container."""
