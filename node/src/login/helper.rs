//! Runs a login helper: on no command line, with an end.
