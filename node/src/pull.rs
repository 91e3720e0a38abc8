//! One image: attempts, what goes on while it is pulled, and what is left behind where it fails.
