"""Says of a deployed stack what works, and where something does not, why and what to do."""
