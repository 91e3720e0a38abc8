//! HTTP over TLS, through the node's proxies.
