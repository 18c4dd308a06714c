//! The switch.

pub mod reverse;
