//! The connection service file: parameters kept under a name, as in
//!
//! ```text
//! [mydb]
//! host=db.example.com
//! dbname=shop
//! ```

use std::fs;
use std::path::{Path, PathBuf};

use super::environment::Environment;
use super::settings::{Settings, is_space};
use crate::fault::{Fault, Result};

/// Fills up with the parameters of the service that the connection string or `PGSERVICE` names, if
/// any does ("The Connection Service File").
///
/// The user's file (`servicefile`, `PGSERVICEFILE` or `~/.pg_service.conf`) comes first; the system's
/// (in `PGSYSCONFDIR`) is only read when the service isn't in there.
///
/// # Errors
/// A usage fault when the service can't be found, or its file can't be read or understood.
pub(super) fn resolve(settings: &mut Settings, env: &Environment) -> Result<()> {
    let Some(service) = setting(settings, env, "service", "PGSERVICE")? else { return Ok(()) };
    let mut searched = Vec::new();
    let user_file = match setting(settings, env, "servicefile", "PGSERVICEFILE")? {
        // A file that was asked for must be there; the usual places may be empty.
        Some(named) => Some(PathBuf::from(named)),
        None => env.in_home(".pg_service.conf").filter(|file| file.exists()),
    };
    let system = env.variable("PGSYSCONFDIR")?.map(Path::new).or(env.system());
    let system_file = system.map(|dir| dir.join("pg_service.conf")).filter(|file| file.exists());
    for file in user_file.into_iter().chain(system_file) {
        if read(&file, &service, settings)? {
            return Ok(());
        }
        searched.push(file.display().to_string());
    }
    let places = if searched.is_empty() { "there is no service file".into() } else { searched.join(", ") };
    Err(settings
        .wrong("service", &format!("names the service \"{service}\", which is not defined ({places})"))
        .remedy("define it as [name] in ~/.pg_service.conf, or name another file with PGSERVICEFILE"))
}

/// A parameter that is needed before the environment fills up the others.
fn setting(settings: &Settings, env: &Environment, name: &str, variable: &str) -> Result<Option<String>> {
    Ok(match settings.get(name) {
        Some(value) => Some(value.to_owned()),
        None => env.variable(variable)?.map(str::to_owned),
    })
}

/// Takes the section of a service; false when the file has none of that name.
fn read(file: &Path, service: &str, settings: &mut Settings) -> Result<bool> {
    let name = file.display();
    let text = fs::read_to_string(file)
        .map_err(|error| Fault::usage(format!("cannot read the service file {name}: {error}")))?;
    let mut found = false;
    for (index, line) in text.lines().enumerate() {
        let line = line.trim_matches(is_space);
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found {
                break;
            }
            // Only the name and the bracket count; what follows them is ignored, as in libpq.
            found = section.strip_prefix(service).is_some_and(|rest| rest.starts_with(']'));
        } else if found {
            let place = format!("in line {} of the service file {name}", index + 1);
            take_line(line, file, &place, settings)?;
        }
    }
    Ok(found)
}

fn take_line(line: &str, file: &Path, place: &str, settings: &mut Settings) -> Result<()> {
    if line.starts_with("ldap") {
        return Err(Fault::usage(format!("LDAP lookup of connection parameters is not supported ({place})"))
            .remedy("write the parameters themselves into the service file"));
    }
    match line.split_once('=') {
        None => Err(Fault::usage(format!("name=value is missing {place}"))),
        Some(("service" | "servicefile", _)) => {
            Err(Fault::usage(format!("a service cannot refer to another service ({place})")))
        }
        Some((name, value)) => settings.take_from_service(name, value, file, place),
    }
}
