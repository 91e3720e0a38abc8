"""Holds what people use today, as its best self: never hampered, and favoured where a choice has to be made."""

import sys
from pathlib import Path

PYTHON_RIVAL = [sys.executable, Path(__file__).parent / "runtime_loop.py"]
"""Serves the handler of the module that is named next."""
