"""Changes ministack's Lambda where its environment, invocations or VPC settings differ from AWS's."""
