//! The same records in SQLite: one table, the indexes that the questions want, and the settings of a
//! service that writes all the time.

use netspy::Connection;
use rusqlite::{Connection as Database, params};

use crate::{BATCH, DAY_US, Place, made, report, timed, window};

const TABLE: &str = "
    PRAGMA journal_mode = WAL;
    PRAGMA synchronous = NORMAL;
    CREATE TABLE connections (
        id TEXT PRIMARY KEY, host TEXT, time INTEGER, direction TEXT, protocol TEXT, family TEXT,
        local_ip TEXT, local_port INTEGER, remote_ip TEXT, remote_port INTEGER, path TEXT,
        pid INTEGER, tid INTEGER, comm TEXT, exe TEXT, cmdline TEXT, uid INTEGER, user TEXT,
        ppid INTEGER, parent TEXT, cgroup TEXT, netns INTEGER, state TEXT, outcome TEXT,
        errno INTEGER, latency_us INTEGER, syn_retransmits INTEGER, close_time INTEGER,
        bytes_sent INTEGER, bytes_received INTEGER, srtt_us INTEGER
    ) WITHOUT ROWID;
    CREATE INDEX by_time ON connections (time, remote_ip);
    CREATE INDEX by_process ON connections (comm, time);";

pub fn run(place: &Place, count: u64) {
    let file = place.0.join("peer.sqlite");
    let mut database = Database::open(&file).unwrap();
    database.execute_batch(TABLE).unwrap();
    let spent = made(count, |batch| insert(&mut database, &batch));
    let bytes = std::fs::metadata(&file).unwrap().len();
    report(count, spent, bytes);
    questions(&database);
}

/// SQLite has no others.
fn signed(n: u64) -> i64 {
    n.cast_signed()
}

fn insert(database: &mut Database, batch: &[Connection]) {
    assert!(batch.len() as u64 <= BATCH);
    let transaction = database.transaction().unwrap();
    let marks = vec!["?"; 31].join(", ");
    let sql = format!("INSERT INTO connections VALUES ({marks})");
    let mut statement = transaction.prepare_cached(&sql).unwrap();
    for c in batch {
        let info = c.process.as_ref().map(|p| &p.info).unwrap();
        let remote = c.remote.as_ref();
        let close = c.close.as_ref();
        statement
            .execute(params![
                c.id.to_string(),
                &*c.host,
                c.time.as_nanosecond() as i64,
                c.direction.as_str(),
                c.protocol.as_str(),
                c.family.as_str(),
                c.local.map(|l| l.ip.to_string()),
                c.local.map(|l| l.port),
                remote.map(|r| r.ip.to_string()),
                remote.map(|r| r.port),
                c.path.as_deref(),
                info.pid,
                c.process.as_ref().map(|p| p.tid),
                &*info.comm,
                info.exe.as_deref(),
                info.cmdline.as_deref(),
                info.uid,
                info.user.as_deref(),
                info.ppid,
                info.parent.as_deref(),
                info.cgroup.as_deref(),
                info.netns,
                c.state.as_str(),
                c.outcome.as_str(),
                c.errno,
                c.latency_us.map(signed),
                c.syn_retransmits,
                close.map(|close| close.time.as_nanosecond() as i64),
                close.and_then(|close| close.bytes_sent).map(signed),
                close.and_then(|close| close.bytes_received).map(signed),
                close.and_then(|close| close.srtt_us),
            ])
            .unwrap();
    }
    drop(statement);
    transaction.commit().unwrap();
}

/// How many rows, or what the only row says.
fn ask(database: &Database, sql: &str, parameters: impl rusqlite::Params) -> u64 {
    let mut statement = database.prepare_cached(sql).unwrap();
    let mut rows = statement.query(parameters).unwrap();
    let (mut sum, mut n) = (0, 0);
    while let Some(row) = rows.next().unwrap() {
        n += 1;
        sum += row.get::<_, i64>(0).unwrap_or(0) as u64;
    }
    if n == 1 { sum } else { n }
}

fn questions(database: &Database) {
    let nanoseconds = |round, length| {
        let (since, until) = window(round, length);
        [since, until].map(|time| time.unwrap().as_nanosecond() as i64)
    };
    timed("count of one process over 60 s", |round| {
        let [since, until] = nanoseconds(round, 60_000_000);
        let sql =
            "SELECT count(*) FROM connections WHERE comm = 'postgres' AND time >= ? AND time < ?";
        ask(database, sql, [since, until])
    });
    timed("latest 100 of one process", |_| {
        let sql = "SELECT * FROM connections WHERE comm = 'postgres' ORDER BY time DESC LIMIT 100";
        ask(database, sql, [])
    });
    timed("latest 100 of one process, and how many there are", |_| {
        let sql = "SELECT * FROM connections WHERE comm = 'postgres' ORDER BY time DESC LIMIT 100";
        let all = "SELECT count(*) FROM connections WHERE comm = 'postgres'";
        ask(database, sql, []) + ask(database, all, [])
    });
    timed("top 10 remotes over 1 h", |round| {
        let [since, until] = nanoseconds(round, 3_600_000_000);
        let sql = "SELECT count(*), remote_ip FROM connections WHERE time >= ? AND time < ?
                   GROUP BY remote_ip ORDER BY 1 DESC LIMIT 10";
        ask(database, sql, [since, until])
    });
    timed("per-minute series over 24 h", |_| {
        let [since, until] = nanoseconds(0, DAY_US);
        let sql = "SELECT count(*) FROM connections WHERE time >= ? AND time < ?
                   GROUP BY time / 60000000000";
        ask(database, sql, [since, until])
    });
}
