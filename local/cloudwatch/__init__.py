"""Extends ministack's CloudWatch by embedded metrics, metrics of queues, and checked dashboards."""
