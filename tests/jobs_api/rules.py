"""The rules of the stack whose jobs API is asked."""

RULES = [
    {"name": "default", "repositories": ["team/*"], "keep": 1, "pin": True},
    {"name": "gpu", "repositories": ["gpu/*", "team/shared"], "nodes": {"pool": ["gpu"]}},
    {"name": "slow", "repositories": ["slow/*"], "nodes": {"pool": ["slow"]}, "maxConcurrency": "1"},
]
