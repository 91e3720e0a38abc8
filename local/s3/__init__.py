"""Extends ministack's S3 by the properties of a stack's bucket."""
