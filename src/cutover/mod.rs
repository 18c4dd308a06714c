//! The switch.

pub mod fence;
pub mod plan;
pub mod reverse;
#[cfg(test)]
mod simulator;

pub use plan::{Step, Way};

use crate::fault::Fault;

/// Somebody else carries the switch out by now.
fn taken_over() -> Fault {
    Fault::person("this switch was taken over by somebody else, as nothing was heard of it")
        .remedy("see cdc status, which says how it goes on")
}
