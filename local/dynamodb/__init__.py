"""Extends ministack's DynamoDB by conflicting transactions and the properties of a stack's tables."""
