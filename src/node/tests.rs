//! The node through its sessions.
