//! What a command says: a line of JSON for each image, and words for people within what SSM returns.
