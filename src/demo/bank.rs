//! What happens in the bank: every transaction keeps the sum of all balances.
//!
//! Each of them first locks the accounts it needs, in the order of their numbers, so that no two
//! wait for each other, and then works with those that it got: an account that was closed in the
//! meantime is simply not among them.

use fastrand::Rng;

use super::deeds::text;
use super::writer::Session;

type Outcome = Result<(), tokio_postgres::Error>;

/// Account numbers that are made up are taken from so many, that two hardly ever meet; if they do,
/// the server refuses the second.
const ACCOUNT_NUMBERS: i64 = 1 << 40;

/// One transaction of the bank.
pub(super) async fn transaction(session: &mut Session, rng: &mut Rng) -> Outcome {
    let kind = rng.u32(0..100);
    session.begin().await?;
    let wanted = if kind < 80 { 2 } else { rng.usize(2..=12) };
    let accounts = lock(session, rng, wanted).await?;
    if let [first, others @ ..] = accounts.as_slice()
        && let [second, ..] = others
    {
        match kind {
            0..70 => transfer(session, rng, *first, *second).await?,
            70..75 => open(session, rng, *first).await?,
            75..80 => close(session, *first, *second).await?,
            80..90 => share_out(session, rng, *first, others).await?,
            90..95 => change_number(session, rng, *second).await?,
            95..98 => try_twice(session, rng, *first, *second).await?,
            _ => {
                transfer(session, rng, *first, *second).await?;
                return session.rollback().await;
            }
        }
    }
    session.commit().await
}

/// Locks up to so many accounts and gives them in an order of its own.
async fn lock(
    session: &mut Session,
    rng: &mut Rng,
    wanted: usize,
) -> Result<Vec<i64>, tokio_postgres::Error> {
    let near: Vec<i64> = (0..wanted).map(|_| near(rng)).collect();
    let query = "SELECT id FROM accounts WHERE id = ANY (ARRAY(
                     SELECT (SELECT id FROM accounts WHERE id >= near ORDER BY id LIMIT 1)
                       FROM unnest($1::bigint[]) near))
                  ORDER BY id FOR UPDATE";
    let mut accounts = session.numbers(query, &[&near]).await?;
    rng.shuffle(&mut accounts);
    Ok(accounts)
}

/// A number at or before some account: one of the first thousand, or of those with a made-up number.
fn near(rng: &mut Rng) -> i64 {
    if rng.bool() { rng.i64(1..=1_000) } else { made_up(rng) }
}

fn made_up(rng: &mut Rng) -> i64 {
    rng.i64(1_001..ACCOUNT_NUMBERS)
}

async fn transfer(session: &mut Session, rng: &mut Rng, source: i64, target: i64) -> Outcome {
    let amount = rng.i64(1..=100);
    session.run("UPDATE accounts SET balance = balance - $1 WHERE id = $2", &[&amount, &source]).await?;
    session.run("UPDATE accounts SET balance = balance + $1 WHERE id = $2", &[&amount, &target]).await?;
    record(session, source, &[target], amount).await
}

async fn record(session: &mut Session, source: i64, targets: &[i64], amount: i64) -> Outcome {
    let insert = "INSERT INTO transfers (source_account, target_account, amount)
                  SELECT $1, target, $3 FROM unnest($2::bigint[]) target";
    session.run(insert, &[&source, &targets, &amount]).await?;
    Ok(())
}

async fn open(session: &mut Session, rng: &mut Rng, source: i64) -> Outcome {
    let number = made_up(rng);
    let insert = "INSERT INTO accounts (id, balance, note) VALUES ($1, 0, $2)";
    session.run(insert, &[&number, &text(rng)]).await?;
    transfer(session, rng, source, number).await
}

async fn close(session: &mut Session, account: i64, heir: i64) -> Outcome {
    let inherit = "UPDATE accounts SET balance = balance + (SELECT balance FROM accounts WHERE id = $1)
                    WHERE id = $2";
    session.run(inherit, &[&account, &heir]).await?;
    session.run("DELETE FROM accounts WHERE id = $1", &[&account]).await?;
    record(session, account, &[heir], 0).await
}

/// One account pays all the others, in one statement.
async fn share_out(session: &mut Session, rng: &mut Rng, source: i64, targets: &[i64]) -> Outcome {
    let amount = rng.i64(1..=10);
    let pay = "UPDATE accounts SET balance = balance + $1 WHERE id = ANY ($2)";
    session.run(pay, &[&amount, &targets]).await?;
    let paid = "UPDATE accounts SET balance = balance - $1::bigint * cardinality($2::bigint[]) WHERE id = $3";
    session.run(paid, &[&amount, &targets, &source]).await?;
    record(session, source, targets, amount).await
}

async fn change_number(session: &mut Session, rng: &mut Rng, account: i64) -> Outcome {
    let number = made_up(rng);
    session.run("UPDATE accounts SET id = $1 WHERE id = $2", &[&number, &account]).await?;
    session.run("UPDATE accounts SET note = $1 WHERE id = $2", &[&text(rng), &number]).await?;
    Ok(())
}

/// A first attempt is taken back, the second one stays.
async fn try_twice(session: &mut Session, rng: &mut Rng, source: i64, target: i64) -> Outcome {
    let before = session.savepoint().await?;
    transfer(session, rng, source, target).await?;
    close(session, source, target).await?;
    session.rollback_to(before).await?;
    session.savepoint().await?;
    transfer(session, rng, target, source).await?;
    session.release().await
}
