//! The seams to the world outside: clock and randomness.
