"""Replaces most of ministack's EC2: instances that start and end as AWS's, volumes with contents, templates, AMIs."""
