"""The measured claims of docs/measured.md, each beside its rival."""
