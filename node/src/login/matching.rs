//! Which images a credential provider is for, as kubelet decides it.
