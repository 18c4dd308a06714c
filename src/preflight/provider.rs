//! What stays behind at the provider, and what of the user's own refers to it.

use super::finding::{Finding, Severity};
use super::{Asked, Check};
use crate::fault::{Result, Side};
use crate::schema::{self, Reference};

/// Looks for references to parts of the provider's, which are not copied, and for rows that stay there.
pub(super) async fn look(check: &mut Check<'_>, source: &Asked, target: &Asked) -> Result<()> {
    for stays in schema::stays_behind(&source.session).await? {
        check.add(
            Finding::warns("stays-behind", Side::Source, stays.to_string())
                .object(&stays.table)
                .mend(&stays.remedy)
                .why("the provider's own schemas are not copied: whoever needs these rows takes them along in another way"),
        );
    }
    let stand_ins = check.config.schema.stand_ins;
    let references = schema::references(&source.session, &target.session).await?;
    for reference in references.iter().filter(|reference| !reference.on_target) {
        // An extension is looked for by its name, whatever refers to it.
        if reference.refers_to_kind == "extension" && reference.kind != "cron job" {
            continue;
        }
        let (why, mend) = advice(reference);
        let text = reference.to_string();
        let (object, what) = match reference.kind.as_str() {
            "grants" => (&reference.refers_to, text),
            _ => (&reference.name, text.replacen(&format!(" {}", reference.name), "", 1)),
        };
        let finding = Finding::warns("provider-reference", Side::Source, what);
        let finding = finding.object(object).why(why).mend(mend);
        check.add(match (schema::has_stand_in(reference), stand_ins) {
            (true, true) => finding
                .severity(Severity::Informs)
                .why("the target lacks that; the start makes a stand-in for it, as [schema] stand_ins says"),
            (true, false) => {
                finding.mend("[schema] stand_ins = true, or run the scripts in sql/supabase on the target")
            }
            (false, _) => finding,
        });
    }
    Ok(())
}

/// What becomes of it on the target, which lacks what it refers to, and what can be done.
fn advice(reference: &Reference) -> (String, String) {
    let Reference { kind, name, refers_to_kind, refers_to, .. } = reference;
    let (why, mend) = match (kind.as_str(), refers_to_kind.as_str()) {
        ("cron job", _) => (
            "jobs of pg_cron are not copied: on the target, nothing runs at that time",
            format!("have it run by the target's pg_cron, or by a timer of the host: {name}"),
        ),
        ("webhook", _) => (
            "the webhook is left out: on the target, nobody is told of these changes",
            "tell of them from the application, or by a trigger of your own on the target".to_owned(),
        ),
        ("grants", _) => (
            "the grants are left out: the target has no such role",
            format!(
                "CREATE ROLE {refers_to} NOLOGIN; on the target, if somebody is to have these rights there"
            ),
        ),
        (_, "publication") => (
            "Supabase Realtime tells its listeners of this table's changes; on the target, nobody does",
            "listen in another way after the switch, LISTEN and NOTIFY for example".to_owned(),
        ),
        (_, "name") => (
            "it is made all the same, and fails on the target when it comes to the line that needs that",
            format!("make {refers_to} on the target, or change the {kind} there"),
        ),
        ("policy", _) => (
            "the policy is left out: whoever isn't the table's owner sees and writes no row that only it allows",
            format!("make {refers_to} on the target, then: cdc schema apply"),
        ),
        _ => (
            "it is left out: the target lacks what it refers to",
            format!("make {refers_to} on the target, then: cdc schema apply; or do without"),
        ),
    };
    (why.to_owned(), mend)
}
