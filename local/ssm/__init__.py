"""Adds what ministack's SSM lacks: documents, Run Command on real nodes, checked parameters."""
