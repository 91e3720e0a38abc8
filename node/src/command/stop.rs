//! The signals that end a command: SSM's cancellation, systemd's stop of the agent.

use std::{
    cell::{Cell, RefCell},
    future::poll_fn,
    io,
    task::{Context, Poll},
};

use tokio::signal::unix::{Signal, SignalKind, signal};

/// Waits for a signal, and remembers it. Once there was one, further ones change nothing: every image is being reported.
#[derive(Debug)]
pub struct Stop {
    signals: RefCell<[Signal; 3]>,
    has_happened: Cell<bool>,
}

impl Stop {
    /// Begins to take signals. It wants a runtime around it.
    ///
    /// # Errors
    /// The operating system's.
    pub fn new() -> io::Result<Self> {
        let signals = [
            signal(SignalKind::terminate())?,
            signal(SignalKind::interrupt())?,
            signal(SignalKind::hangup())?,
        ];
        Ok(Self {
            signals: RefCell::new(signals),
            has_happened: Cell::new(false),
        })
    }

    /// Returns once there was a signal.
    pub async fn happens(&self) {
        poll_fn(|context| self.poll(context)).await;
    }

    /// Tells whether there was a signal.
    #[must_use]
    pub fn has_happened(&self) -> bool {
        self.has_happened.get()
    }

    fn poll(&self, context: &mut Context<'_>) -> Poll<()> {
        for signal in self.signals.borrow_mut().iter_mut() {
            if signal.poll_recv(context).is_ready() {
                self.has_happened.set(true);
            }
        }
        if self.has_happened.get() {
            Poll::Ready(())
        } else {
            Poll::Pending
        }
    }
}
