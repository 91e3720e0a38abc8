"""Extends ministack's Auto Scaling groups by the instances that say they are theirs."""
