//! How fast a backlog is applied.
//!
//! Native replication and `cdc` follow the same source, each into a database of its own; both are stopped while
//! a backlog is written and take it in turns, one alone at a time, as does a reader that throws everything away.
//! The native one commits asynchronously, as is its default; `cdc` durably.

mod workload;

use std::collections::BTreeMap;

use crate::support::backlog::{Backlog, MARKER};
use crate::support::ceiling::Ceiling;
use crate::support::report::{Report, Table, number};
use crate::support::way::{Drain, Follower, PUBLICATION, Way};
use crate::support::{
    EVENTS, NEW_EVENTS, Servers, drop_database, fresh_database, is_wanted, say, scaled, turns,
};
use workload::{WORKLOADS, Workload};

/// So many changes in each; a multiple of 400. A tenth of them precedes them.
const CHANGES: i64 = 300_000;

/// Who takes a backlog.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Who {
    Native,
    Cdc,
    NativeFar,
    CdcFar,
    Ceiling,
}

/// The median of each.
type Medians = BTreeMap<Who, Drain>;

pub async fn run(servers: &Servers, report: &mut Report) {
    let changes = scaled(CHANGES) / 400 * 400;
    let mut near = Table::new(&[
        "",
        "native",
        "cdc",
        "ceiling",
        "cdc / native",
        "cdc / ceiling",
        "CPU native",
        "CPU cdc",
        "CPU ceiling",
        "memory",
    ]);
    let mut far = Table::new(&[
        "",
        "cdc",
        "cdc, 30 ms",
        "30 ms / without",
        "native, 30 ms",
        "CPU cdc, 30 ms",
        "memory",
    ]);
    for workload in WORKLOADS.iter().filter(|workload| is_wanted(workload.name)) {
        let medians = measure(servers, workload, changes).await;
        add_near(&mut near, report, workload, changes, &medians);
        if workload.is_far {
            add_far(&mut far, workload, changes, &medians);
        }
    }
    let what = format!(
        "{} changes each; changes a second. CPU: seconds for 100,000 changes, of the walsender + the backend \
         that applies + the daemon. Memory: the daemon's at its most, in MiB.",
        number(changes as f64)
    );
    report.section("Backlogs", &what, &near);
    report.section(
        "Far away",
        "The same backlogs with a round trip of 30 ms between the source and what follows it, and between cdc and \
         the target.",
        &far,
    );
}

async fn measure(servers: &Servers, workload: &Workload, changes: i64) -> Medians {
    let turns = turns();
    let each = changes + changes / 10;
    let all = each * i64::try_from(turns).unwrap();
    let source = fresh_database(&servers.source, workload.name).await;
    let mut setup = format!("{EVENTS}; {NEW_EVENTS}; {MARKER}; {};", workload.prepare);
    if workload.is_filled {
        setup += &format!("INSERT INTO events SELECT * FROM new_events(1, {all});");
    }
    setup += &format!("CREATE PUBLICATION {PUBLICATION} FOR ALL TABLES");
    source.batch_execute(&setup).await.unwrap();
    source.batch_execute("VACUUM ANALYZE").await.unwrap();

    let mut ways = Vec::new();
    for (who, follower, is_far) in [
        (Who::Native, Follower::Native, false),
        (Who::Cdc, Follower::Cdc, false),
        (Who::NativeFar, Follower::Native, true),
        (Who::CdcFar, Follower::Cdc, true),
    ] {
        if workload.is_far || !is_far {
            ways.push((who, Way::new(servers, workload.name, follower, is_far).await));
        }
    }
    let ceiling = Ceiling::new(servers, workload.name).await;
    let mut drains: BTreeMap<Who, Vec<Drain>> = BTreeMap::new();
    for turn in 0..turns {
        let first = i64::try_from(turn).unwrap() * each + 1;
        let begin = first + changes / 10;
        let [warm_up, measured] = [(first, begin - 1), (begin, first + each - 1)].map(|(first, last)| {
            workload
                .write
                .replace("FIRST", &first.to_string())
                .replace("LAST", &last.to_string())
                .replace("ALL_ROWS", &all.to_string())
        });
        let backlog = Backlog::write(&source, turn, [&warm_up, &measured]).await;
        // Nobody is always the first, or behind the same one.
        let ways_in_all = ways.len();
        ways.rotate_left(turn % ways_in_all);
        for (who, way) in &mut ways {
            let drain = way.drain(&backlog).await;
            say_drain(workload, *who, changes, &drain);
            drains.entry(*who).or_default().push(drain);
        }
        let drain = ceiling.drain(&backlog).await;
        say_drain(workload, Who::Ceiling, changes, &drain);
        drains.entry(Who::Ceiling).or_default().push(drain);
    }
    for (_, way) in ways {
        way.end().await;
    }
    ceiling.end().await;
    drop(source);
    drop_database(&servers.source, workload.name).await;
    drains.into_iter().map(|(who, drains)| (who, Drain::median(drains))).collect()
}

fn say_drain(workload: &Workload, who: Who, changes: i64, drain: &Drain) {
    say(format_args!(
        "{} {who:?}: {} changes/s, CPU {}",
        workload.name,
        number(rate(changes, drain)),
        cpu(changes, drain)
    ));
}

fn rate(changes: i64, drain: &Drain) -> f64 {
    changes as f64 / drain.seconds
}

/// Seconds of CPU for 100,000 changes.
fn cpu(changes: i64, drain: &Drain) -> String {
    let each = drain.cpu.map(|seconds| format!("{:.2}", seconds * 100_000.0 / changes as f64));
    each.join(" + ")
}

fn add_near(table: &mut Table, report: &mut Report, workload: &Workload, changes: i64, medians: &Medians) {
    let [native, cdc, ceiling] = [Who::Native, Who::Cdc, Who::Ceiling].map(|who| medians[&who]);
    let [native_rate, cdc_rate, ceiling_rate] = [native, cdc, ceiling].map(|drain| rate(changes, &drain));
    table.row(vec![
        format!("{} {}", workload.name, workload.what),
        number(native_rate),
        number(cdc_rate),
        number(ceiling_rate),
        format!("{:.2}", cdc_rate / native_rate),
        format!("{:.2}", cdc_rate / ceiling_rate),
        cpu(changes, &native),
        cpu(changes, &cdc),
        cpu(changes, &ceiling),
        number(cdc.peak_mib),
    ]);
    let bars = [("native", native_rate), ("cdc", cdc_rate), ("ceiling", ceiling_rate)];
    report.bars(&format!("{}: {}", workload.name, workload.what), &bars);
}

fn add_far(table: &mut Table, workload: &Workload, changes: i64, medians: &Medians) {
    let [near, far, native] = [Who::Cdc, Who::CdcFar, Who::NativeFar].map(|who| medians[&who]);
    table.row(vec![
        format!("{} {}", workload.name, workload.what),
        number(rate(changes, &near)),
        number(rate(changes, &far)),
        format!("{:.2}", near.seconds / far.seconds),
        number(rate(changes, &native)),
        cpu(changes, &far),
        number(far.peak_mib),
    ]);
}
