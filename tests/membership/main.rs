//! Groups of memberships, each whole in one process, on a clock that the test moves.

#![allow(clippy::unwrap_used)]

mod agreement;
mod founding;
mod group;
mod voters;
