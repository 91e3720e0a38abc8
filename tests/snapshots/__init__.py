"""Bakes make a snapshot where something has changed; builders say by script what they have pulled."""
