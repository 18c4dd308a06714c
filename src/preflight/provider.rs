//! What stays behind at the provider, and what of the user's own refers to it.

use super::finding::Finding;
use super::{Asked, Check};
use crate::fault::{Result, Side};
use crate::schema::{self, Reference};

/// Looks for references to parts of the provider's, which are not copied, and for rows that stay there.
pub(super) async fn look(check: &mut Check<'_>, source: &Asked, target: &Asked) -> Result<()> {
    for stays in schema::stays_behind(&source.session).await? {
        check.add(
            Finding::warns("stays-behind", Side::Source, stays.to_string())
                .object(&stays.table)
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
        let finding = Finding::warns("provider-reference", Side::Source, reference.to_string());
        let finding = finding.object(&reference.name).why(why(reference));
        check.add(if schema::has_stand_in(reference) {
            match stand_ins {
                true => finding.severity(super::Severity::Informs).why(
                    "the target lacks that; the start makes a stand-in for it, as [schema] stand_ins says",
                ),
                false => finding
                    .mend("[schema] stand_ins = true, or run the scripts in sql/supabase on the target"),
            }
        } else {
            finding
        });
    }
    Ok(())
}

/// What becomes of it on the target, which lacks what it refers to.
fn why(reference: &Reference) -> String {
    let Reference { kind, refers_to_kind, .. } = reference;
    match (kind.as_str(), refers_to_kind.as_str()) {
        ("cron job", _) => "jobs of pg_cron are not copied: on the target, nothing runs at that time".to_owned(),
        ("webhook", _) => "the webhook is left out: on the target, nobody is told of these changes".to_owned(),
        ("grants", _) => "the grants are left out: the target has no such role".to_owned(),
        (_, "publication") => {
            "Supabase Realtime tells its listeners of this table's changes; on the target, nobody does".to_owned()
        }
        (_, "name") => {
            "it is made all the same, and fails on the target when it comes to the line that needs that".to_owned()
        }
        ("policy", _) => {
            "the policy is left out: whoever isn't the table's owner sees and writes no row that only it allows".to_owned()
        }
        _ => format!("the {kind} is left out: the target lacks what it refers to"),
    }
}
