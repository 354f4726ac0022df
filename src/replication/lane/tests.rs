//! The lane through its messages.
