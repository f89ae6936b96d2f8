//! Checks of the repository that no compiler does, and generated documents.

fn main() {}
