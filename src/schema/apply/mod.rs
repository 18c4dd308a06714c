//! The copy of the schema: what the source has and the target lacks is made on the target.

mod programs;

pub use programs::{Programs, programs};
