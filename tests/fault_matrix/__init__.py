"""Has every call that a function makes of AWS fail in every way, and says what became of its work."""
