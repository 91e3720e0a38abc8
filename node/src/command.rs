//! One command from its parameters to its exit code.
