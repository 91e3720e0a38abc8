"""Extends ministack's CloudFormation by properties, custom resources and events that it lacks."""
