//! Counts panics, wherever they are caught: the tasks of a crate panic by themselves, and the runtime
//! goes on.
//!
//! Used by several targets, each with `#[path = "…/panics/mod.rs"] mod panics;`.

use std::cell::Cell;
use std::panic;
use std::sync::Once;

thread_local!(static PANICS: Cell<u32> = const { Cell::new(0) });

/// Those of this thread while that runs. Under libFuzzer, whose hook ends the process, none gets so far.
pub(crate) fn panics_of(run: impl FnOnce()) -> u32 {
    static HOOKED: Once = Once::new();
    HOOKED.call_once(|| {
        let before = panic::take_hook();
        panic::set_hook(Box::new(move |info| {
            PANICS.with(|panics| panics.set(panics.get() + 1));
            before(info);
        }));
    });
    let before = PANICS.get();
    run();
    PANICS.get() - before
}
