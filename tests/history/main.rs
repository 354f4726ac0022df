//! The checker of histories, checked: histories whose verdict is known by hand, and random ones
//! that a real node has answered.

#[path = "../alone/mod.rs"]
mod alone;
#[path = "mod.rs"]
mod history;

mod known;
mod random;
