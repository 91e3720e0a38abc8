"""Runs the machines that play nodes: containerd, Bottlerocket, a boot, and the fleet they form."""
