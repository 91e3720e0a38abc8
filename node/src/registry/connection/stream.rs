//! A connection, and whether a proxy is at its other end, which wants whole addresses.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
};

use hyper::rt::{Read, ReadBufCursor, Write};
use hyper_rustls::MaybeHttpsStream;
use hyper_util::{
    client::legacy::connect::{Connected, Connection},
    rt::TokioIo,
};
use tokio::net::TcpStream;

/// The connection below.
type Inner = MaybeHttpsStream<TokioIo<TcpStream>>;

/// A connection to a host, or to a proxy that asks it.
pub struct Stream {
    inner: Inner,
    is_to_proxy: bool,
}

impl Stream {
    /// Takes a connection, or a tunnel, for one to the host.
    pub fn to_host(inner: Inner) -> Self {
        Self {
            inner,
            is_to_proxy: false,
        }
    }

    /// Takes a connection for one to a proxy.
    pub fn to_proxy(inner: Inner) -> Self {
        Self {
            inner,
            is_to_proxy: true,
        }
    }

    fn inner(self: Pin<&mut Self>) -> Pin<&mut Inner> {
        Pin::new(&mut self.get_mut().inner)
    }
}

impl Connection for Stream {
    fn connected(&self) -> Connected {
        self.inner.connected().proxy(self.is_to_proxy)
    }
}

impl Read for Stream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: ReadBufCursor<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_read(cx, buf)
    }
}

impl Write for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        self.inner().poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.inner().poll_shutdown(cx)
    }
}
