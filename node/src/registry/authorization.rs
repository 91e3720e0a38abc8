//! Whom a registry wants to be asked by: Basic, or a token that another host gives.
