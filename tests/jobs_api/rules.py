"""The rules of the stack whose jobs API is asked."""

from local.stack import EVERYTHING

RULES = [
    {"name": "default", "repositories": ["team/*"], "keep": 1, "pin": True, **EVERYTHING},
    {"name": "gpu", "repositories": ["gpu/*", "team/shared"], "nodes": {"pool": ["gpu"]}, **EVERYTHING},
    {"name": "slow", "repositories": ["slow/*"], "nodes": {"pool": ["slow"]}, "maxConcurrency": "1", **EVERYTHING},
]
