//! What happens in the bank: every transaction keeps the sum of all balances.
//!
//! Each of them first locks the accounts it needs, in the order of their numbers, so that no two
//! wait for each other, and then works with those that it got: an account that was closed in the
//! meantime is simply not among them.

use fastrand::Rng;

use super::deeds::fill;
use super::writer::Session;

type Outcome = Result<(), tokio_postgres::Error>;

/// Account numbers that are made up are taken from so many, that two hardly ever meet; if they do,
/// the server refuses the second.
const ACCOUNT_NUMBERS: i64 = 1 << 40;

/// One transaction of the bank.
pub(super) async fn transaction(session: &mut Session, rng: &mut Rng) -> Outcome {
    let kind = rng.u32(0..100);
    session.begin().await?;
    let wanted = if kind < 80 { 2 } else { rng.u32(2..=12) };
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
async fn lock(session: &Session, rng: &mut Rng, wanted: u32) -> Result<Vec<i64>, tokio_postgres::Error> {
    let picks: Vec<String> = (0..wanted).map(|_| pick(rng)).collect();
    let query = format!("SELECT id FROM accounts WHERE id IN ({}) ORDER BY id FOR UPDATE", picks.join(", "));
    let mut accounts = session.numbers(&query).await?;
    rng.shuffle(&mut accounts);
    Ok(accounts)
}

/// Some account: one of the first thousand, or of those with a made-up number.
fn pick(rng: &mut Rng) -> String {
    let from = if rng.bool() { rng.i64(1..=1_000) } else { rng.i64(1..ACCOUNT_NUMBERS) };
    format!("(SELECT id FROM accounts WHERE id >= {from} ORDER BY id LIMIT 1)")
}

async fn transfer(session: &mut Session, rng: &mut Rng, source: i64, target: i64) -> Outcome {
    let amount = rng.i64(1..=100);
    session.run(&format!("UPDATE accounts SET balance = balance - {amount} WHERE id = {source}")).await?;
    session.run(&format!("UPDATE accounts SET balance = balance + {amount} WHERE id = {target}")).await?;
    record(session, source, target, amount).await
}

async fn record(session: &mut Session, source: i64, target: i64, amount: i64) -> Outcome {
    session
        .run(&format!(
            "INSERT INTO transfers (source_account, target_account, amount) VALUES ({source}, {target}, {amount})"
        ))
        .await?;
    Ok(())
}

async fn open(session: &mut Session, rng: &mut Rng, source: i64) -> Outcome {
    let number = rng.i64(1_001..ACCOUNT_NUMBERS);
    let sql = format!("INSERT INTO accounts (id, balance, note) VALUES ({number}, 0, $text)");
    session.run(&fill(&sql, rng)).await?;
    transfer(session, rng, source, number).await
}

async fn close(session: &mut Session, account: i64, heir: i64) -> Outcome {
    session
        .run(&format!(
            "UPDATE accounts SET balance = balance + (SELECT balance FROM accounts WHERE id = {account})
              WHERE id = {heir}"
        ))
        .await?;
    session.run(&format!("DELETE FROM accounts WHERE id = {account}")).await?;
    record(session, account, heir, 0).await
}

/// One account pays all the others, in one statement.
async fn share_out(session: &mut Session, rng: &mut Rng, source: i64, targets: &[i64]) -> Outcome {
    let amount = rng.i64(1..=10);
    let list: Vec<String> = targets.iter().map(i64::to_string).collect();
    let list = list.join(", ");
    let paid = session
        .run(&format!("UPDATE accounts SET balance = balance + {amount} WHERE id IN ({list})"))
        .await?;
    session
        .run(&format!("UPDATE accounts SET balance = balance - {amount} * {paid} WHERE id = {source}"))
        .await?;
    session
        .run(&format!(
            "INSERT INTO transfers (source_account, target_account, amount)
             SELECT {source}, t, {amount} FROM unnest(ARRAY[{list}]::bigint[]) t"
        ))
        .await?;
    Ok(())
}

async fn change_number(session: &mut Session, rng: &mut Rng, account: i64) -> Outcome {
    let number = rng.i64(1_001..ACCOUNT_NUMBERS);
    session.run(&format!("UPDATE accounts SET id = {number} WHERE id = {account}")).await?;
    let note = fill(&format!("UPDATE accounts SET note = $text WHERE id = {number}"), rng);
    session.run(&note).await?;
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
