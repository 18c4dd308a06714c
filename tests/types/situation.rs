//! Tables, their rows, and what becomes of them.

/// Tables with rows that are there before the copy, and changes for the stream. Statements may each be
/// several; a text is one transaction unless it says otherwise.
#[derive(Default)]
pub struct Situation {
    /// Makes the tables on both sides.
    pub schema: String,
    /// What only the source has besides, and only the target.
    pub source_schema: String,
    pub target_schema: String,
    /// Writes the rows: before the copy, and once more when the stream has emptied all tables.
    pub rows: String,
    /// What the target does for itself once the rows are there.
    pub on_target: String,
    /// What is done to the rows.
    pub changes: Vec<String>,
    /// Questions that the target answers with `true` after the changes.
    pub checks: Vec<String>,
}

impl Situation {
    /// One whose tables are alike.
    pub fn new(schema: &str, rows: &str, changes: &[&str]) -> Self {
        Self {
            schema: schema.to_owned(),
            rows: rows.to_owned(),
            changes: changes.iter().map(|change| (*change).to_owned()).collect(),
            ..Self::default()
        }
    }
}
