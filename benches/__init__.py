"""The measured claims of the README, each beside its rival."""
