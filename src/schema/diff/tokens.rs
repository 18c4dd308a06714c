//! SQL as the server prints it, cut into tokens: enough to tell names from literals.

use std::collections::BTreeMap;
use std::ops::Range;

use crate::catalog::TableName;

/// What a token is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Sort {
    /// A name or a key word.
    Word,
    /// A string, also a function's body between dollars.
    Literal,
    /// One character of anything else.
    Mark,
}

/// A token and where it is.
#[derive(Clone, Copy, Debug)]
struct Token<'a> {
    sort: Sort,
    text: &'a str,
    start: usize,
}

impl Token<'_> {
    fn is(&self, sort: Sort, text: &str) -> bool {
        self.sort == sort && self.text == text
    }

    fn end(&self) -> usize {
        self.start + self.text.len()
    }

    /// Neither a name nor a literal: where a query goes on with another clause.
    fn ends_from(&self) -> bool {
        let ends = ["WHERE", "GROUP", "HAVING", "WINDOW", "ORDER", "LIMIT", "OFFSET", "FETCH", "FOR"];
        self.sort == Sort::Word && (ends.contains(&self.text) || self.is_set_operation())
    }

    fn is_set_operation(&self) -> bool {
        self.sort == Sort::Word && ["UNION", "EXCEPT", "INTERSECT"].contains(&self.text)
    }

    fn begins_query(&self) -> bool {
        self.sort == Sort::Word && ["SELECT", "WITH", "VALUES"].contains(&self.text)
    }
}

fn tokens(text: &str) -> Vec<Token<'_>> {
    let mut tokens = Vec::new();
    let mut start = 0;
    while let Some(first) = text[start..].chars().next() {
        let rest = &text[start..];
        let (sort, length) = match first {
            c if c.is_whitespace() => {
                start += c.len_utf8();
                continue;
            }
            '"' => (Sort::Word, quoted(rest, '"', false)),
            '\'' => (Sort::Literal, quoted(rest, '\'', false)),
            'E' if rest[1..].starts_with('\'') => (Sort::Literal, 1 + quoted(&rest[1..], '\'', true)),
            '$' => match between_dollars(rest) {
                Some(length) => (Sort::Literal, length),
                None => (Sort::Mark, 1),
            },
            c if c.is_alphabetic() || c == '_' => {
                let is_part = |c: char| c.is_alphanumeric() || c == '_' || c == '$';
                (Sort::Word, rest.find(|c| !is_part(c)).unwrap_or(rest.len()))
            }
            c => (Sort::Mark, c.len_utf8()),
        };
        tokens.push(Token { sort, text: &rest[..length], start });
        start += length;
    }
    tokens
}

/// How long the quoted text at the beginning is; a doubled quote is part of it.
fn quoted(text: &str, quote: char, has_escapes: bool) -> usize {
    let mut characters = text.char_indices().skip(1).peekable();
    while let Some((at, c)) = characters.next() {
        if has_escapes && c == '\\' {
            characters.next();
        } else if c == quote && characters.next_if(|next| next.1 == quote).is_none() {
            return at + 1;
        }
    }
    text.len()
}

/// How long the text between `$tag$` and `$tag$` at the beginning is, with both.
fn between_dollars(text: &str) -> Option<usize> {
    let tag = 1 + text[1..].find('$')?;
    let is_tag = text[1..tag].chars().all(|c| c.is_alphanumeric() || c == '_');
    let (tag, rest) = text.split_at(tag + 1);
    let body = rest.find(tag).filter(|_| is_tag)?;
    Some(tag.len() + body + tag.len())
}

/// The string literals in a text, as they are written there.
pub(in crate::schema) fn literals(text: &str) -> Vec<&str> {
    tokens(text).into_iter().filter(|token| token.sort == Sort::Literal).map(|token| token.text).collect()
}

/// The parts of a list that commas separate, but for those between parentheses.
pub(super) fn parts(list: &str) -> Vec<&str> {
    let (mut parts, mut depth, mut start) = (Vec::new(), 0_usize, 0);
    for token in tokens(list) {
        if token.sort == Sort::Mark {
            match token.text {
                "(" => depth += 1,
                ")" => depth = depth.saturating_sub(1),
                "," if depth == 0 => {
                    parts.push(list[start..token.start].trim());
                    start = token.end();
                }
                _ => {}
            }
        }
    }
    parts.push(list[start..].trim());
    parts
}

/// What a qualified name names, and what that is in: `("public.t", "c")` for `public.t.c`.
pub(in crate::schema) fn last_name(name: &str) -> (&str, &str) {
    let dot = tokens(name).into_iter().rfind(|token| token.is(Sort::Mark, "."));
    dot.map_or(("", name), |dot| (&name[..dot.start], &name[dot.end()..]))
}

/// The schema and the object that a qualified name begins with, unquoted; a kind of object may stand before it.
pub(super) fn first_names(name: &str) -> TableName {
    let tokens = tokens(name);
    let dot = tokens.iter().position(|token| token.is(Sort::Mark, ".")).filter(|dot| *dot > 0);
    let unquoted = |token: &Token| plain(token.text);
    match dot {
        Some(dot) => {
            TableName::new(unquoted(&tokens[dot - 1]), tokens.get(dot + 1).map(unquoted).unwrap_or_default())
        }
        None => TableName::new(tokens.last().map(unquoted).unwrap_or_default(), "*"),
    }
}

/// True if the text has this qualified name, quoted as it is.
pub(super) fn names_object(text: &str, name: &str) -> bool {
    let (text, name) = (tokens(text), tokens(name));
    text.windows(name.len()).any(|some| some.iter().zip(&name).all(|(a, b)| a.text == b.text))
}

/// A `CREATE TABLE` without the default of this column (unquoted), if it has one.
pub(in crate::schema) fn without_default(create: &str, column: &str) -> Option<String> {
    let (mut depth, mut is_column, mut default) = (0_usize, false, None);
    let tokens = tokens(create);
    for (at, token) in tokens.iter().enumerate() {
        let is_end = depth == 1
            && (token.is(Sort::Mark, ",")
                || token.is(Sort::Mark, ")")
                || ["NOT", "COLLATE", "CONSTRAINT"].iter().any(|word| token.is(Sort::Word, word)));
        if let Some(start) = default.filter(|_| is_end) {
            return Some(format!("{}{}", create[..start].trim_end(), &create[tokens[at - 1].end()..]));
        }
        let is_next = depth == 1 && at > 0 && ["(", ","].contains(&tokens[at - 1].text);
        match token.text {
            "(" if token.sort == Sort::Mark => depth += 1,
            ")" if token.sort == Sort::Mark => depth = depth.saturating_sub(1),
            _ if is_next => is_column = token.sort == Sort::Word && plain(token.text) == column,
            "DEFAULT" if depth == 1 && is_column => default = Some(token.start),
            _ => {}
        }
    }
    None
}

/// A `CREATE TABLE` without the constraints of the table that are NOT NULL, and the columns that they are of, as they
/// are written there: only 18 and newer servers know such constraints.
pub(in crate::schema) fn without_not_null(create: &str) -> (String, Vec<&str>) {
    let is_not_null = |part: &str| {
        let words: Vec<&str> = tokens(part).iter().map(|token| token.text).collect();
        matches!(words.as_slice(), ["NOT", "NULL", ..] | ["CONSTRAINT", _, "NOT", "NULL", ..])
    };
    let (mut depth, mut open, mut close) = (0_usize, None, None);
    for token in tokens(create).iter().filter(|token| token.sort == Sort::Mark) {
        match token.text {
            "(" => {
                open = open.or(Some(token.end()));
                depth += 1;
            }
            ")" => {
                depth = depth.saturating_sub(1);
                close = close.or((depth == 0).then_some(token.start));
            }
            _ => {}
        }
    }
    let (Some(open), Some(close)) = (open, close) else { return (create.to_owned(), Vec::new()) };
    let (gone, kept): (Vec<&str>, Vec<&str>) =
        parts(&create[open..close]).into_iter().partition(|part| is_not_null(part));
    if gone.is_empty() {
        return (create.to_owned(), Vec::new());
    }
    let without = format!("{}\n    {}\n{}", &create[..open], kept.join(",\n    "), &create[close..]);
    let column = |part: &&'_ str| {
        tokens(part).iter().skip_while(|t| t.text != "NULL").nth(1).map(|t| t.start..t.end())
    };
    (without, gone.iter().filter_map(|part| column(part).map(|range| &part[range])).collect())
}

/// The statements of a script, without their semicolons.
pub(in crate::schema) fn statements(script: &str) -> Vec<&str> {
    let (mut statements, mut start) = (Vec::new(), 0);
    for end in tokens(script).iter().filter(|token| token.is(Sort::Mark, ";")) {
        statements.push(script[start..end.start].trim());
        start = end.end();
    }
    statements.push(script[start..].trim());
    statements.retain(|statement| !statement.is_empty());
    statements
}

/// What a name is when it isn't quoted.
fn plain(name: &str) -> String {
    match name.strip_prefix('"').and_then(|name| name.strip_suffix('"')) {
        Some(quoted) => quoted.replace("\"\"", "\""),
        None => name.to_owned(),
    }
}

/// The names and key words in the text, unquoted.
pub(in crate::schema) fn words(text: &str) -> Vec<String> {
    tokens(text).iter().filter(|token| token.sort == Sort::Word).map(|token| plain(token.text)).collect()
}

/// The first name or key word of the text, as it is written there.
pub(in crate::schema) fn first(text: &str) -> &str {
    tokens(text).first().map_or("", |token| token.text)
}

/// The names in the text that are qualified with a schema, unquoted.
pub(in crate::schema) fn qualified_names(text: &str) -> Vec<(String, String)> {
    let is_word = |token: &Token<'_>| token.sort == Sort::Word;
    let tokens = tokens(text);
    let qualified =
        tokens.windows(3).filter(|w| is_word(&w[0]) && w[1].is(Sort::Mark, ".") && is_word(&w[2]));
    qualified.map(|three| (plain(three[0].text), plain(three[2].text))).collect()
}

/// The roles that a policy is for, or that a statement gives rights to or takes them from, unquoted.
pub(in crate::schema) fn roles(statement: &str) -> Vec<String> {
    let tokens = tokens(statement);
    let begins = |words: &[&str]| words.iter().zip(&tokens).all(|(word, token)| token.is(Sort::Word, word));
    let is_policy = begins(&["CREATE", "POLICY"]);
    if !(is_policy
        || begins(&["GRANT"])
        || begins(&["REVOKE"])
        || begins(&["ALTER", "DEFAULT", "PRIVILEGES"]))
    {
        return Vec::new();
    }
    let starts =
        |token: &Token<'_>| token.is(Sort::Word, "TO") || (!is_policy && token.is(Sort::Word, "FROM"));
    let at = if is_policy { tokens.iter().position(starts) } else { tokens.iter().rposition(starts) };
    let Some(at) = at else { return Vec::new() };
    let mut roles = Vec::new();
    for pair in tokens[at..].windows(2) {
        let is_list = pair[0].is(Sort::Mark, ",") || starts(&pair[0]);
        if is_list && pair[1].sort == Sort::Word {
            roles.push(plain(pair[1].text));
        } else if !pair[1].is(Sort::Mark, ",") {
            break;
        }
    }
    roles
}

/// True if a name in the text is qualified with this schema.
pub(super) fn names_schema(text: &str, schema: &str) -> bool {
    tokens(text).windows(2).any(|pair| pair[0].is(Sort::Word, schema) && pair[1].is(Sort::Mark, "."))
}

/// The text with the schemas of some names replaced: of the name, by the schema and the name.
pub(in crate::schema) fn relocate(text: &str, moved: &BTreeMap<(String, String), String>) -> String {
    let tokens = tokens(text);
    let schemas = tokens.windows(3).filter_map(|three| {
        let key = (three[0].text.to_owned(), three[2].text.to_owned());
        let schema = moved.get(&key).filter(|_| three[1].is(Sort::Mark, "."))?;
        Some((three[0].start..three[0].end(), schema.as_str()))
    });
    replaced(text, schemas)
}

fn replaced<'a>(text: &str, changes: impl Iterator<Item = (Range<usize>, &'a str)>) -> String {
    let (mut result, mut start) = (String::with_capacity(text.len()), 0);
    for (range, by) in changes {
        result.push_str(&text[start..range.start]);
        result.push_str(by);
        start = range.end;
    }
    result + &text[start..]
}

/// A view's query without the table's name before its columns, if it is from one table only: servers before
/// 16 print it and newer ones don't (`get_query_def` in `ruleutils.c`). In subqueries all of them do.
pub(super) fn unqualified(query: &str) -> String {
    let tokens = tokens(query);
    let Some(alias) = only_table(&tokens) else { return query.to_owned() };
    let mut is_subquery = Vec::new();
    let mut drops = Vec::new();
    for (at, token) in tokens.iter().enumerate() {
        let next = |n: usize| tokens.get(at + n);
        if token.is(Sort::Mark, "(") {
            is_subquery.push(next(1).is_some_and(Token::begins_query));
        } else if token.is(Sort::Mark, ")") {
            is_subquery.pop();
        } else if token.is(Sort::Word, alias)
            && !is_subquery.contains(&true)
            && next(1).is_some_and(|dot| dot.is(Sort::Mark, "."))
            && next(2).is_some_and(|column| column.sort == Sort::Word)
            && !(at > 0 && tokens[at - 1].is(Sort::Mark, "."))
        {
            drops.push((token.start..token.end() + 1, ""));
        }
    }
    replaced(query, drops.into_iter())
}

/// The name by which a query's columns are qualified, if it is from one table or subquery only.
fn only_table<'a>(tokens: &[Token<'a>]) -> Option<&'a str> {
    let mut depth = 0_usize;
    let outer: Vec<(usize, &Token<'a>)> = tokens
        .iter()
        .enumerate()
        .filter(|(_, token)| {
            if token.is(Sort::Mark, ")") {
                depth = depth.saturating_sub(1);
            }
            let is_outer = depth == 0;
            if token.is(Sort::Mark, "(") {
                depth += 1;
            }
            is_outer
        })
        .collect();
    if outer.iter().any(|(_, token)| token.is_set_operation()) {
        return None;
    }
    let from = outer.iter().position(|(_, token)| token.is(Sort::Word, "FROM"))? + 1;
    let items: Vec<_> = outer[from..].iter().take_while(|(_, token)| !token.ends_from()).collect();
    // A join is in parentheses, as a subquery is.
    let (first, token) = items.first()?;
    let is_join = token.is(Sort::Mark, "(") && !tokens.get(first + 1).is_some_and(Token::begins_query);
    if is_join || items.iter().any(|(_, token)| token.is(Sort::Mark, ",")) {
        return None;
    }
    let named = items.iter().take_while(|(_, token)| !token.is(Sort::Word, "TABLESAMPLE"));
    named.map(|(_, token)| token).filter(|token| token.sort == Sort::Word).last().map(|token| token.text)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_lose_the_name_of_the_only_table_and_no_other() {
        for (before, after) in [
            (
                " SELECT t.a,\n    sum(t.b) AS s\n   FROM public.t\n  GROUP BY t.a",
                " SELECT a,\n    sum(b) AS s\n   FROM public.t\n  GROUP BY a",
            ),
            (
                " SELECT x.a FROM public.t x WHERE (EXISTS ( SELECT FROM public.u WHERE (u.a = x.a)))",
                " SELECT a FROM public.t x WHERE (EXISTS ( SELECT FROM public.u WHERE (u.a = x.a)))",
            ),
            (
                " SELECT s.a FROM ( SELECT t.a FROM public.t) s",
                " SELECT a FROM ( SELECT t.a FROM public.t) s",
            ),
            (" SELECT EXTRACT(year FROM t.a) FROM public.t", " SELECT EXTRACT(year FROM a) FROM public.t"),
            (
                " SELECT \"T\".a, 'T.a', t.a FROM ONLY public.\"T\"",
                " SELECT a, 'T.a', t.a FROM ONLY public.\"T\"",
            ),
            (" SELECT g.g FROM generate_series(1, 2) g(g)", " SELECT g FROM generate_series(1, 2) g(g)"),
            (" SELECT public.f(public.*) FROM public", " SELECT f(public.*) FROM public"),
        ] {
            assert_eq!(unqualified(before), after);
            assert_eq!(unqualified(after), after);
        }
        for same in [
            " SELECT t.a FROM (public.t JOIN public.u ON ((t.a = u.a)))",
            " SELECT t.a FROM public.t, public.u",
            " SELECT t.a FROM public.t UNION SELECT u.a FROM public.u",
            " SELECT 1",
        ] {
            assert_eq!(unqualified(same), same);
        }
    }

    #[test]
    fn the_schema_of_a_moved_name_is_replaced_but_not_in_literals() {
        let moved = BTreeMap::from([(("extensions".to_owned(), "vector".to_owned()), "public".to_owned())]);
        assert_eq!(
            relocate(
                "x extensions.vector(3), 'extensions.vector', extensions.other, $f$extensions.vector$f$",
                &moved
            ),
            "x public.vector(3), 'extensions.vector', extensions.other, $f$extensions.vector$f$"
        );
    }

    #[test]
    fn names_lists_and_literals_are_taken_apart() {
        assert_eq!(last_name("public.\"a.b\".\"c\"\"d\""), ("public.\"a.b\"", "\"c\"\"d\""));
        assert_eq!(parts("a numeric(1, 2), \"b,\" text"), ["a numeric(1, 2)", "\"b,\" text"]);
        assert_eq!(literals("'it''s', E'a\\'b', 'ü'"), ["'it''s'", "E'a\\'b'", "'ü'"]);
        assert!(names_schema("REFERENCES auth.users(id)", "auth"));
        assert!(!names_schema("DEFAULT 'auth.users' , author.x", "auth"));
        assert_eq!(
            statements("GRANT x ON t TO \"a;b\";\n\nCOMMENT ON t IS ';';\n"),
            ["GRANT x ON t TO \"a;b\"", "COMMENT ON t IS ';'"]
        );
        let name = |schema: &str, name: &str| (schema.to_owned(), name.to_owned());
        assert_eq!(
            qualified_names("REFERENCES \"A.b\".\"c\"\"d\"(x), public.t 'a.b'"),
            [name("A.b", "c\"d"), name("public", "t")]
        );
    }

    #[test]
    fn a_table_loses_the_default_of_one_column() {
        let with = "CREATE TABLE public.t (\n    a int DEFAULT f(1, 'x,') NOT NULL,\n    \"b,\" text DEFAULT auth.uid() COLLATE \"C\",\n    c int DEFAULT (NOT 1)\n)";
        let without = |column| without_default(with, column).unwrap();
        assert_eq!(without("a"), with.replace(" DEFAULT f(1, 'x,')", ""));
        assert_eq!(without("b,"), with.replace(" DEFAULT auth.uid()", ""));
        assert_eq!(without("c"), with.replace(" DEFAULT (NOT 1)", ""));
        assert_eq!(without_default(with, "d"), None);
        let (without, columns) = without_not_null(
            "CREATE TABLE t (\n    a int NOT NULL,\n    NOT NULL id,\n    CONSTRAINT \"n,\" NOT NULL \"B b\"\n)\nINHERITS (p);",
        );
        assert_eq!(without, "CREATE TABLE t (\n    a int NOT NULL\n)\nINHERITS (p);");
        assert_eq!(columns, ["id", "\"B b\""]);
    }

    #[test]
    fn roles_are_found_where_rights_are_given() {
        for (statement, wanted) in [
            ("GRANT SELECT ON TABLE public.t TO anon", vec!["anon"]),
            ("GRANT ALL ON TABLE public.\"TO\" TO \"A b\" WITH GRANT OPTION", vec!["A b"]),
            ("REVOKE ALL ON TABLE public.t FROM PUBLIC", vec!["PUBLIC"]),
            ("CREATE POLICY p ON t TO a, \"B\" USING ((x = EXTRACT(year FROM y)))", vec!["a", "B"]),
            ("CREATE POLICY p ON t USING (true)", vec![]),
            ("CREATE VIEW v AS SELECT 1 FROM anon", vec![]),
        ] {
            assert_eq!(roles(statement), wanted, "{statement}");
        }
    }
}
