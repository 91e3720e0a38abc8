"""The deployed stack's jobs API: requests are carried out once, and what becomes of them is told."""
