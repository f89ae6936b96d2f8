//! The checker against histories that are right, wrong, and damaged.

mod blows;
mod corrupt;
mod corruptions;
mod files;
mod judged;
mod model;
mod run_facts;
mod second;
