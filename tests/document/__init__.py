"""The Command document's script on real containerd, against a real registry that asks for a login as ECR does."""
