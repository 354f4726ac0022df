//! Remembers that Ctrl-C or SIGTERM came, so that loops end and the servers are stopped by their owner.

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use tokio::signal::unix::{SignalKind, signal};

use crate::failure::{Doing, Failure};

static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// Starts listening for both signals on a thread that sleeps until one comes.
pub(crate) fn watch() -> Result<(), Failure> {
    thread::Builder::new()
        .name("interrupt".to_owned())
        .spawn(|| wait_for_signal().inspect_err(|error| eprintln!("versus: no Ctrl-C: {error}")))
        .doing(|| "starting the signal thread".to_owned())?;
    Ok(())
}

fn wait_for_signal() -> io::Result<()> {
    tokio::runtime::Builder::new_current_thread().enable_io().build()?.block_on(async {
        let mut interrupt = signal(SignalKind::interrupt())?;
        let mut terminate = signal(SignalKind::terminate())?;
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        INTERRUPTED.store(true, Ordering::Relaxed);
        Ok(())
    })
}

/// Whether a signal came.
pub(crate) fn is_interrupted() -> bool {
    INTERRUPTED.load(Ordering::Relaxed)
}

/// Ends the caller with `?` once a signal came.
pub(crate) fn check() -> Result<(), Failure> {
    if is_interrupted() {
        return Err(Failure::Interrupted);
    }
    Ok(())
}
