"""Extends ministack's EKS by the clusters that tests name."""
