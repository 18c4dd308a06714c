//! What stands in the way, looked for before anything is touched.

pub(crate) mod refuse;
mod wanted;

pub(crate) use wanted::Wanted;
