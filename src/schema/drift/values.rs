//! Which types hold the values of another one, each printed as it was. Pure.

/// True if every value of the one type is a value of the other, and is printed the same there.
pub(super) fn keeps_values(from: &str, to: &str) -> bool {
    let (from, to) = (Type::of(from), Type::of(to));
    let place = |t: &Type| ["smallint", "integer", "bigint"].iter().position(|integer| t.name == *integer);
    match (place(&from), place(&to)) {
        (Some(from), Some(to)) => return from <= to,
        (Some(_), None) => return to.name == "numeric" && to.modifiers.is_empty(),
        (None, _) => {}
    }
    let is_longer = match (&from.modifiers[..], &to.modifiers[..]) {
        (_, []) => true,
        ([from], [to]) => from <= to,
        // A number of digits, and of those behind the point.
        ([from, from_scale], [to, to_scale]) => from <= to && from_scale == to_scale,
        _ => false,
    };
    match (from.name.as_str(), to.name.as_str()) {
        ("character varying", "text") => true,
        ("text", "character varying") => to.modifiers.is_empty(),
        ("bit", "bit varying") => is_longer,
        ("character varying" | "numeric" | "bit varying", same) => same == from.name && is_longer,
        (_, same) => same == from.name && from.is_time() && is_longer,
    }
}

/// A type as `format_type` prints it.
struct Type {
    name: String,
    modifiers: Vec<i32>,
}

impl Type {
    fn of(text: &str) -> Self {
        let Some((name, rest)) = text.split_once('(').filter(|_| !text.ends_with("[]")) else {
            return Self { name: text.to_owned(), modifiers: Vec::new() };
        };
        // The precision of a time is in the middle: timestamp(3) with time zone.
        let (modifiers, suffix) = rest.split_once(')').unwrap_or((rest, ""));
        let modifiers = modifiers.split(',').filter_map(|modifier| modifier.trim().parse().ok()).collect();
        Self { name: format!("{name}{suffix}"), modifiers }
    }

    fn is_time(&self) -> bool {
        self.name.starts_with("time ") || self.name.starts_with("timestamp ")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_wider_type_keeps_every_value() {
        for (from, to) in [
            ("integer", "bigint"),
            ("smallint", "numeric"),
            ("character varying(5)", "character varying(6)"),
            ("character varying(5)", "text"),
            ("character varying", "text"),
            ("text", "character varying"),
            ("numeric(10,2)", "numeric(12,2)"),
            ("numeric(10,2)", "numeric"),
            ("timestamp(3) without time zone", "timestamp without time zone"),
            ("time(0) with time zone", "time(3) with time zone"),
            ("bit(3)", "bit varying(4)"),
        ] {
            assert!(keeps_values(from, to), "{from} {to}");
        }
    }

    #[test]
    fn what_cuts_rounds_or_prints_values_differently_does_not() {
        for (from, to) in [
            ("bigint", "integer"),
            ("integer", "numeric(5,0)"),
            ("integer", "text"),
            ("character varying(6)", "character varying(5)"),
            ("text", "character varying(9)"),
            ("character(3)", "character(5)"),
            ("character(3)", "text"),
            ("numeric(10,2)", "numeric(12,4)"),
            ("numeric(10,2)", "numeric(9,2)"),
            ("numeric", "numeric(9,2)"),
            ("real", "double precision"),
            ("timestamp without time zone", "timestamp with time zone"),
            ("timestamp without time zone", "timestamp(3) without time zone"),
            ("time without time zone", "timestamp without time zone"),
            ("integer[]", "bigint[]"),
            ("character varying(5)[]", "character varying(6)[]"),
            ("public.mood", "text"),
            ("json", "jsonb"),
        ] {
            assert!(!keeps_values(from, to), "{from} {to}");
        }
    }
}
