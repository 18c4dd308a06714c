//! The turn: from one direction to the other, with nothing lost, nothing copied, and nothing that goes in a circle.
//!
//! After the switch the same engine runs from the target to the source, so that going back loses no write; a rollback
//! is the same turn again. A direction is a [`Config`] whose ends are the right way round ([`Config::facing`]): it
//! names where rows are read, where they are applied and the ledger is, the slot and the publications. Below, *sender*
//! is the database that the next direction reads from, which the present one applies to, and *receiver* the other one.
//!
//! ```text
//!            before the fence        the fence holds; all is drained        the sender takes writes
//! sender     publications, slot      ──► position P ────────────────────┐
//! receiver   ledger: tables as       ◄── checkpoint = P                 │   daemon: slot and publications of
//!            they are, all copied                                       ▼   the direction before are removed
//! home                                                              direction, epoch + 1
//!            Turn::ready             Turn::prepare                  Turn::turn      clear
//! ```
//!
//! # What the ledgers hold
//!
//! Each direction has its ledger in the database that it applies to. That of the target which the file names is *home*:
//! it also says which direction runs (`cdc.migration.direction`), and whoever begins asks there first. Home is one end
//! of either direction, so whoever can't reach it couldn't replicate anyway. The other ledger is made by
//! [`Turn::ready`], and stays when the direction has turned back: what was held back there is recorded in it.
//!
//! # Why nothing is lost and nothing goes in a circle
//!
//! The slot is made before the fence, as that waits for whatever runs on the sender. What the applier of the present
//! direction writes there until the drain is in that slot's stream, too; but P is read when all of that is committed
//! and before the sender takes its first write, and a stream drops what was committed below its checkpoint (C1). P is
//! the flushed end of the log behind a commit of our own: what is committed after it lies behind it, also after a crash
//! of the server.
//!
//! The turn increments the epoch of the ledger that was applied to, so a daemon that has not heard of it can't commit
//! there any more. The slot of the direction before still exists then and would hold log for ever; the daemon removes
//! it before it applies anything the other way ([`clear()`]; `is_cleared` says that this is still to be done), so
//! that what it applies is in no slot's future. A later turn makes a slot anew, again with a P behind all of it.
//!
//! # Crashes
//!
//! | killed | what is there | what the next one does |
//! | --- | --- | --- |
//! | in `ready` | some of: ledger, publications, slot. The ledger was told before either | `ready` makes the slot anew; or `undo` |
//! | between `ready` and `turn` | all of it; the direction is as before | `prepare` again, inside a fence; or `undo` |
//! | in `turn` to reverse | one statement at home: turned or not | as it is |
//! | in `turn` back | the reverse epoch has ended, home not told | the reverse daemon begins another epoch and goes on; `turn` again |
//! | after `turn` | the slot of before, until a daemon starts | [`clear()`] at each start until it has been done |
//! | in `undo` | less and less: slot, publications, rows of the ledger | `undo` again |
//!
//! Nothing is made on the receiver's tables before the turn: its triggers and foreign keys act on the applications'
//! writes until the fence, and are held back (C8) by the first start of the engine that applies there.

mod ready;

use std::sync::Arc;
use std::time::Duration;

use tokio::time::Instant;
use tokio_postgres::SimpleQueryMessage;

use crate::catalog::quote_identifier;
use crate::config::{Config, Direction};
use crate::connect::Session;
use crate::engine::free_slot;
use crate::fault::{Fault, Result, Side};
use crate::ledger::Ledger;
use crate::limits;
use crate::lsn::Lsn;
use crate::preflight::{self, Finding};
use crate::replication::Slot;
use crate::schema::drift::seen;

/// What stands in the way of a turn, asked before anything is touched. Nothing is changed.
///
/// # Errors
/// If a database can't be asked.
pub async fn check(now: &Config) -> Result<Vec<Finding>> {
    preflight::way_back(now).await
}

/// A turn from the direction in which the migration runs to the other one, with sessions to both ends that are open
/// before the fence is.
pub struct Turn {
    /// As the migration runs.
    now: Config,
    /// As it will.
    next: Config,
    /// The ledger of now, on the database that will send.
    sender: Ledger,
    /// The ledger of next, on the database that will receive.
    receiver: Ledger,
}

impl Turn {
    /// Connects to both ends. `now` is how the migration runs ([`crate::ledger::as_it_runs`]).
    ///
    /// # Errors
    /// If one can't be reached, or the migration doesn't run like that.
    pub async fn open(now: &Config) -> Result<Self> {
        let next = now.facing(now.direction.turned());
        let application = application(now);
        let (sender, receiver) = tokio::try_join!(
            Session::open(&next.source, Side::Source, &application),
            Session::open(&next.target, Side::Target, &application),
        )
        .map_err(Fault::swapped)?;
        let ledger = |session| Ledger::new(Arc::new(session), &now.name);
        let turn = Self { now: now.clone(), next, sender: ledger(sender), receiver: ledger(receiver) };
        refuse_turned(turn.home(), now).await?;
        Ok(turn)
    }

    /// The ledger that knows the direction.
    fn home(&self) -> &Ledger {
        match self.now.direction {
            Direction::Forward => &self.sender,
            Direction::Reverse => &self.receiver,
        }
    }

    /// Before the fence: makes the publications and the slot of the next direction, and tells its ledger how the
    /// tables are. Takes as long as it takes, but waits no longer than `patience` for the transactions that the slot
    /// waits for. What an earlier one has left is made anew.
    ///
    /// # Errors
    /// If a database refuses; with who is in the way if the slot can't be had in time.
    pub async fn ready(&self, patience: Duration) -> Result<()> {
        self.make_ready(patience).await.map_err(Fault::swapped)
    }

    /// Inside the fence, when the present direction has brought everything to the sender and before that takes its first
    /// write: the next direction begins here. A few round trips.
    ///
    /// # Errors
    /// If a database refuses, or the tables are not as they were when [`Turn::ready`] looked.
    pub async fn prepare(&self) -> Result<Lsn> {
        let prepare = async {
            let sender = self.sender.session();
            let (start, seen, ()) =
                tokio::try_join!(self.position(), seen(sender, Side::Source), self.refuse_without_slot())?;
            if self.receiver.begin_at(start, &seen).await? {
                return Ok(start);
            }
            Err(Fault::retry("tables have changed while the turn was being prepared")
                .on(Side::Source)
                .remedy("nothing has turned: do it again"))
        };
        prepare.await.map_err(Fault::swapped)
    }

    /// The flushed end of the sender's log, behind all that was committed there before.
    async fn position(&self) -> Result<Lsn> {
        let sql = "BEGIN; SET LOCAL synchronous_commit = local;
                   SELECT pg_catalog.pg_logical_emit_message(true, 'cdc', 'turn'); COMMIT;
                   SELECT pg_catalog.pg_current_wal_flush_lsn() AS position";
        let answers = self.sender.session().simple_query(sql).await;
        let answers = answers.map_err(|e| Fault::sql(Side::Source, "asking for the position", &e))?;
        let position = answers.iter().find_map(|answer| match answer {
            SimpleQueryMessage::Row(row) => row.try_get("position").ok().flatten()?.parse().ok(),
            _ => None,
        });
        position.ok_or_else(|| Fault::bug("the sender has no position"))
    }

    /// The slot that [`Turn::ready`] has made must hold all from there on.
    async fn refuse_without_slot(&self) -> Result<()> {
        let name = self.next.slot();
        let slot = Slot::find(self.sender.session(), &name).await?;
        if slot.is_some_and(|slot| !slot.is_lost() && slot.confirmed_flush_lsn.is_some()) {
            return Ok(());
        }
        Err(Fault::retry(format!("the replication slot {name} is not there any more"))
            .on(Side::Source)
            .remedy("nothing has turned: do it again"))
    }

    /// The point of no return: from here on the migration runs in the next direction, and a daemon of it goes over by
    /// itself. The sender may have taken writes already; what it takes from now on, too, arrives at the receiver.
    ///
    /// # Errors
    /// If [`Turn::prepare`] hasn't been done, or a database can't be asked. Nothing has turned then.
    pub async fn turn(&self) -> Result<()> {
        let turn = async {
            if !self.receiver.exists().await? || self.receiver.checkpoint().await?.is_none() {
                return Err(Fault::bug("the turn has not been prepared"));
            }
            if self.next.direction == Direction::Forward {
                // At home this comes with the turn itself.
                self.sender.end_epoch().await?;
            }
            self.home().turn(Some(self.next.direction)).await
        };
        turn.await.map_err(Fault::swapped)
    }
}

/// Nothing is replicated from here on, either way: ends the present direction and removes its slot and publications.
///
/// # Errors
/// If a database can't be asked. If it is the source, the migration has ended all the same, and what it has left there
/// is removed by `cdc drop`.
pub async fn end(now: &Config) -> Result<()> {
    let home = home(now).await?;
    home.turn(None).await?;
    clear(now, &home).await
}

/// Removes what the direction that has ended has left on its source, if that is still to be done, and closes its ledger.
///
/// # Errors
/// If a database can't be asked; the next one goes on.
pub async fn clear(config: &Config, home: &Ledger) -> Result<()> {
    let course = home.course().await?;
    if course.is_cleared {
        return Ok(());
    }
    let ended = if course.is_over { course.direction } else { course.direction.turned() };
    let ended = config.facing(ended);
    remove(&ended).await?;
    if !course.is_over {
        ledger(&ended).await?.retire(ended.direction).await?;
    }
    home.set_cleared().await
}

/// Takes back what [`Turn::ready`] and [`Turn::prepare`] have made. Does nothing if it is gone already.
///
/// # Errors
/// If a database can't be asked, or the migration has turned.
pub async fn undo(now: &Config) -> Result<()> {
    refuse_turned(&home(now).await?, now).await?;
    let next = now.facing(now.direction.turned());
    let undo = async {
        remove(&next).await?;
        match next.direction {
            // Its ledger is home, and what is in there is made anew by the next turn.
            Direction::Forward => Ok(()),
            Direction::Reverse => ledger(&next).await?.forget_direction().await,
        }
    };
    undo.await.map_err(Fault::swapped)
}

/// Removes the slot of a direction, before all, and its publications.
async fn remove(of: &Config) -> Result<()> {
    let source = Session::open(&of.source, Side::Source, &application(of)).await?;
    remove_slot(&source, of).await?;
    let ledger = ledger(of).await?;
    let publications = if ledger.exists().await? { ledger.publications_created().await? } else { Vec::new() };
    for name in publications {
        source
            .batch_execute(&format!("DROP PUBLICATION IF EXISTS {}", quote_identifier(&name)))
            .await
            .map_err(|e| Fault::sql(Side::Source, &format!("dropping the publication {name}"), &e))?;
    }
    Ok(())
}

/// Removes the slot of a direction. A session of ours that uses it, or is still making it, is ended.
async fn remove_slot(source: &Session, of: &Config) -> Result<()> {
    let (name, ours) = (of.slot(), format!("cdc_{} ", of.name));
    let deadline = Instant::now() + limits::SLOT_FREE;
    while let Some(slot) = Slot::find(source, &name).await? {
        let user = slot.active_application.filter(|user| user.starts_with(&ours)).unwrap_or_default();
        free_slot(source, &name, &user).await?;
        if Slot::find(source, &name).await?.is_none() {
            // One that was still being made is gone with its session.
            break;
        }
        match Slot::remove(source, &name).await {
            // A daemon that doesn't know yet has come back to it.
            Err(fault) if fault.passes() && Instant::now() < deadline => {
                tokio::time::sleep(limits::FEEDBACK_DELAY).await;
            }
            removed => return removed,
        }
    }
    Ok(())
}

async fn home(config: &Config) -> Result<Ledger> {
    let (info, side) = config.home();
    let session = Session::open(info, side, &application(config)).await?;
    Ok(Ledger::new(Arc::new(session), &config.name))
}

/// The ledger of a direction.
async fn ledger(of: &Config) -> Result<Ledger> {
    let session = Session::open(&of.target, Side::Target, &application(of)).await?;
    Ok(Ledger::new(Arc::new(session), &of.name))
}

async fn refuse_turned(home: &Ledger, now: &Config) -> Result<()> {
    let course = home.course().await?;
    if course.direction == now.direction && !course.is_over {
        return Ok(());
    }
    let direction = now.direction.as_str();
    Err(Fault::person(format!(
        "the direction of the migration is not {direction} any more: it has turned, or ended"
    ))
    .remedy("see cdc status"))
}

fn application(config: &Config) -> String {
    format!("cdc_{} turn", config.name)
}
