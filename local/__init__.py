"""The local cloud: an emulated AWS, a real OCI registry and nodes that really run the commands."""
