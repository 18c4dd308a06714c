//! What a server says in an ErrorResponse or a NoticeResponse.
#![deny(clippy::wildcard_enum_match_arm)]

use bytes::Bytes;
use tokio_postgres::error::{DbError, SqlState};

use crate::fault::{Fault, Side};

/// An error or a notice (PostgreSQL documentation, chapter "Error and Notice Message Fields").
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Report {
    /// `ERROR`, `WARNING`, ..., never translated where the server is 9.6 or newer.
    pub severity: String,
    /// The SQLSTATE.
    pub code: SqlState,
    /// What happened. Before the login it can be in any language and encoding.
    pub message: String,
    /// More about it.
    pub detail: Option<String>,
    /// What the server advises.
    pub hint: Option<String>,
    /// The table that it is about, as `schema.table`.
    pub table: Option<String>,
}

impl Report {
    /// Reads the fields of the message; what can't be read is left out.
    #[must_use]
    pub(crate) fn parse(body: &Bytes) -> Self {
        let mut report = Self {
            severity: String::new(),
            code: SqlState::INTERNAL_ERROR,
            message: String::new(),
            detail: None,
            hint: None,
            table: None,
        };
        let (mut schema, mut table) = (None, None);
        let mut localized_severity = String::new();
        for field in body.split(|byte| *byte == 0) {
            let Some((kind, value)) = field.split_first() else { break };
            let value = String::from_utf8_lossy(value).into_owned();
            match kind {
                b'V' => report.severity = value,
                b'S' => localized_severity = value,
                // A code has five characters; anything else isn't one.
                b'C' if value.len() == 5 && value.is_ascii() => report.code = SqlState::from_code(&value),
                b'M' => report.message = value,
                b'D' => report.detail = Some(value),
                b'H' => report.hint = Some(value),
                b's' => schema = Some(value),
                b't' => table = Some(value),
                // Position, place in the server's source and the like.
                _ => {}
            }
        }
        if report.severity.is_empty() {
            report.severity = localized_severity;
        }
        report.table = schema.zip(table).map(|(schema, table)| format!("{schema}.{table}"));
        report
    }

    /// The failure that this error is, with the reaction that its SQLSTATE asks for and the server's advice.
    #[must_use]
    pub(crate) fn fault(&self, side: Side, doing: &str) -> Fault {
        let fault = self.bare_fault(side, doing);
        match &self.hint {
            Some(hint) => fault.remedy(hint.clone()),
            None => fault,
        }
    }

    /// The same without the server's advice, which is for those who write SQL.
    #[must_use]
    pub(crate) fn bare_fault(&self, side: Side, doing: &str) -> Fault {
        let mut what = format!("{doing}: {}", self.message);
        if let Some(detail) = &self.detail {
            what.push_str(&format!(" ({detail})"));
        }
        let fault = Fault::server(side, what, &self.code);
        match &self.table {
            Some(table) => fault.table(table.clone()),
            None => fault,
        }
    }

    /// Passes a notice on to the log.
    pub(crate) fn log(&self, side: Side) {
        log_notice(side, &self.severity, &self.code, &self.message, self.detail.as_deref());
    }
}

/// Passes a notice of a SQL session on to the log.
pub(crate) fn log_session_notice(side: Side, notice: &DbError) {
    log_notice(side, notice.severity(), notice.code(), notice.message(), notice.detail());
}

fn log_notice(side: Side, severity: &str, code: &SqlState, message: &str, detail: Option<&str>) {
    let (code, detail) = (code.code(), detail.unwrap_or_default());
    if matches!(severity, "WARNING" | "ERROR" | "FATAL" | "PANIC") {
        tracing::warn!(%side, code, detail, "the server says: {message}");
    } else {
        tracing::debug!(%side, code, detail, "the server says: {message}");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_error_is_read_field_by_field() {
        let body = Bytes::from_static(b"SFEHLER\0VERROR\0C42704\0Mno slot\0Dx\0Hmake one\0\0");
        let report = Report::parse(&body);
        assert_eq!(report.severity, "ERROR");
        assert_eq!(report.code, SqlState::UNDEFINED_OBJECT);
        let fault = report.fault(Side::Source, "starting");
        assert_eq!(
            fault.to_string(),
            "source: starting: no slot (x) [SQLSTATE 42704]\n  what to do: make one"
        );
    }

    #[test]
    fn bytes_that_are_no_fields_give_an_empty_error() {
        for body in [&b""[..], b"\0\0\0", b"C", b"C4\0", b"C\xff\xff\xff\xff\xff\0", b"M\xff"] {
            assert_eq!(Report::parse(&Bytes::from_static(body)).code, SqlState::INTERNAL_ERROR, "{body:?}");
        }
    }
}
