//! Stand-ins for those parts of Supabase that the user's own objects refer to, made on the target if the
//! configuration says so (`stand_ins = true` under `[schema]`): roles that can't log in, and the functions of
//! schema `auth`. What is there already is left alone.

use super::Reference;
use crate::connect::Session;
use crate::fault::{Fault, Result, Side};

/// A script, what it stands in for, and what the role needs that runs it.
struct StandIn {
    sql: &'static str,
    stands_in_for: fn(&Reference) -> bool,
    needs: &'static str,
}

const STAND_INS: [StandIn; 2] = [
    StandIn {
        sql: include_str!("../../sql/supabase/roles.sql"),
        stands_in_for: |reference| {
            reference.refers_to_kind == "role"
                && ["anon", "authenticated", "service_role"].contains(&reference.refers_to.as_str())
        },
        needs: "run sql/supabase/roles.sql as a role with CREATEROLE, or: CREATE ROLE anon NOLOGIN; \
                CREATE ROLE authenticated NOLOGIN; CREATE ROLE service_role NOLOGIN",
    },
    StandIn {
        sql: include_str!("../../sql/supabase/auth.sql"),
        stands_in_for: |reference| {
            let functions = ["auth.uid", "auth.jwt", "auth.role", "auth.email"];
            ["function", "name"].contains(&reference.refers_to_kind.as_str())
                && functions.contains(&reference.refers_to.trim_end_matches("()"))
        },
        needs: "GRANT CREATE ON DATABASE ... TO the role that cdc connects as, or run sql/supabase/auth.sql as its owner",
    },
];

/// True if there is a stand-in for what the object refers to.
#[must_use]
pub fn has_stand_in(reference: &Reference) -> bool {
    STAND_INS.iter().any(|stand_in| (stand_in.stands_in_for)(reference))
}

/// Makes the stand-ins that these references need and the target lacks. Returns what this role could not make.
///
/// # Errors
/// If the target can't be asked, or fails for another reason than missing rights.
pub async fn make_stand_ins(target: &Session, references: &[Reference]) -> Result<Vec<Fault>> {
    let mut not_made = Vec::new();
    for stand_in in STAND_INS {
        let is_needed = |reference: &Reference| !reference.on_target && (stand_in.stands_in_for)(reference);
        if !references.iter().any(is_needed) {
            continue;
        }
        if let Err(error) = target.batch_execute(stand_in.sql).await {
            let fault = Fault::sql(Side::Target, "making stand-ins for parts of Supabase", &error);
            if fault.code() != Some(&tokio_postgres::error::SqlState::INSUFFICIENT_PRIVILEGE) {
                return Err(fault);
            }
            not_made.push(fault.remedy(stand_in.needs));
        }
    }
    Ok(not_made)
}
