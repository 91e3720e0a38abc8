"""Commands that are killed at their system calls, one after the other: the next command succeeds, and nothing stays."""
