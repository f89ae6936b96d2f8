//! The store's state machine, pure: commands, keys, apply, read.
