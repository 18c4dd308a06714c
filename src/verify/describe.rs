//! What a person is told of a row that differs: its key, the columns, and if that is asked for, the values.

use super::chunk::Found;
use super::ends::Ends;
use super::report::{Difference, Kind, Values};
use super::sql::fields;
use super::unit::Unit;
use crate::fault::{Fault, Result, Side};
use crate::limits;

/// How many characters before the place where two values differ are shown.
const BEFORE: usize = 20;

/// Describes rows that differ. What is gone or the same by now is described with what was known before.
pub(super) async fn describe(
    ends: &Ends,
    unit: &Unit,
    found: &[Found],
    show_values: bool,
) -> Result<Vec<Difference>> {
    let mut differences = Vec::with_capacity(found.len());
    for batch in found.chunks(limits::VERIFY_DESCRIBED) {
        let ids: Vec<String> = batch.iter().map(|found| found.id.clone()).collect();
        let (source, target) = tokio::try_join!(
            ends.column_hashes(Side::Source, unit, &ids),
            ends.column_hashes(Side::Target, unit, &ids),
        )?;
        for ((found, source), target) in batch.iter().zip(source).zip(target) {
            let at = source.as_ref().or(target.as_ref()).map(|(at, _)| at.clone());
            let columns = match (found.kind, &source, &target) {
                (Kind::Different, Some((_, source)), Some((_, target))) => differing(unit, source, target),
                _ => Vec::new(),
            };
            let mut difference = Difference {
                kind: found.kind,
                key: key(unit, &found.id, at),
                rows: found.rows,
                columns,
                values: Vec::new(),
            };
            if show_values {
                difference.values = values(ends, unit, &found.id, &difference).await?;
            }
            difference.columns.truncate(limits::VERIFY_COLUMNS);
            differences.push(difference);
        }
    }
    Ok(differences)
}

fn differing(unit: &Unit, source: &[i64], target: &[i64]) -> Vec<String> {
    let columns = unit.place(Side::Source).columns.iter();
    columns
        .zip(source.iter().zip(target))
        .filter(|(_, (s, t))| s != t)
        .map(|(name, _)| name.clone())
        .collect()
}

/// `column=value, ...`, or where the row is.
fn key(unit: &Unit, id: &str, at: Option<String>) -> String {
    let key = &unit.place(Side::Source).key;
    if key.is_empty() {
        return at.map_or_else(|| "a row that has gone since".to_owned(), |at| format!("ctid={at}"));
    }
    let show = |text: String| text.chars().take(limits::SHOWN_CHARS).collect::<String>();
    let values = fields(id).unwrap_or_default().into_iter().map(|value| show(value.unwrap_or_default()));
    key.iter()
        .zip(values)
        .map(|(column, value)| format!("{}={value}", column.name))
        .collect::<Vec<_>>()
        .join(", ")
}

async fn values(ends: &Ends, unit: &Unit, id: &str, difference: &Difference) -> Result<Vec<Values>> {
    let columns = difference.columns.get(..limits::VERIFY_VALUES).unwrap_or(&difference.columns);
    let read = |side| async move {
        let values = ends.values(side, unit, id, columns).await?;
        Ok::<_, Fault>(values.unwrap_or_else(|| vec![None; columns.len().max(1)]))
    };
    let (source, target) = tokio::try_join!(read(Side::Source), read(Side::Target))?;
    let names = columns.iter().cloned().map(Some).chain(columns.is_empty().then_some(None));
    Ok(names
        .zip(source.into_iter().zip(target))
        .map(|(column, (source, target))| {
            let (source, target) = shorten(source.as_deref(), target.as_deref());
            Values { column, source, target }
        })
        .collect())
}

/// Both values from a little before the place where they differ.
fn shorten(source: Option<&str>, target: Option<&str>) -> (Option<String>, Option<String>) {
    let same = match (source, target) {
        (Some(source), Some(target)) => {
            source.chars().zip(target.chars()).take_while(|(s, t)| s == t).count()
        }
        _ => 0,
    };
    let from = if same > limits::SHOWN_CHARS / 2 { same - BEFORE } else { 0 };
    let cut = |text: &str| {
        let shown: String = text.chars().skip(from).take(limits::SHOWN_CHARS).collect();
        let is_cut = text.chars().nth(from + limits::SHOWN_CHARS).is_some();
        format!("{}{shown}{}", if from > 0 { "…" } else { "" }, if is_cut { "…" } else { "" })
    };
    (source.map(cut), target.map(cut))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn two_values_are_shown_from_where_they_differ() {
        let both = |s: Option<&str>, t: Option<&str>| shorten(s, t);
        assert_eq!(both(Some("1.00"), Some("1.0")), (Some("1.00".into()), Some("1.0".into())));
        assert_eq!(both(None, Some("")), (None, Some(String::new())));
        let long = |end: &str| format!("{}{end}{}", "a".repeat(5000), "b".repeat(200));
        let (source, target) = both(Some(&long("é")), Some(&long("e")));
        assert_eq!(source.unwrap(), format!("…{}é{}…", "a".repeat(20), "b".repeat(59)));
        assert!(target.unwrap().starts_with("…aaaaaaaaaaaaaaaaaaaae"));
    }
}
