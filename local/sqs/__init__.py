"""Changes ministack's SQS as an event source of Lambda."""
