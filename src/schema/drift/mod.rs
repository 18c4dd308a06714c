//! The source's schema changes while its rows are followed.
//!
//! The ledger remembers for each table of the copy how it was when the target was brought to it (its [`Shape`]):
//! the numbers of its columns, which stay with a column for as long as it lives, and which column of the target is
//! which. A look at the catalogs then says exactly what was done:
//!
//! ```text
//! number known, another name      renamed                    a person renames it on the target
//! number known, another type      wider: made; otherwise a person; rewritten: copied again
//! new number, the name was there  dropped and added again    its old values are gone: copied again
//! new number                      added                      made, with the value that the old rows have;
//!                                                            copied again if nobody knows that value
//! number gone                     dropped                    stays, and must not refuse rows
//! ```
//!
//! What is made on the target early does no harm: a new column has the default there that the old rows of the source
//! have in it, until everything from before it has come. So there is one place where something is done, a look,
//! and it is taken at the start, every few seconds, and when something can't be applied. Each thing that it does
//! is one transaction of the target; a look that is interrupted is taken again and finds the rest.
//!
//! What a change of the stream means is decided by its columns' names ([`Known`]). Columns that nobody has seen end
//! the engine, a look is taken, and the next one begins at the checkpoint.

mod finish;
mod known;
mod labels;
mod look;
mod make;
mod newcomers;
mod plan;
mod shape;
mod values;

pub use known::Known;
pub use look::{Drift, Open, seen};
pub use shape::{Shape, Table, tables};
