//! Where a center keeps what it knows, and how it is decided which of several centers leads.
//!
//! One center: a `redb` file; whoever has it open leads. The epoch is the time of its start in milliseconds, or
//! one more than the last in the file: proxies know that one too, and follow a center whose file was lost.
//! Several: etcd; the leader holds a key by a lease, the epoch is the revision at which it got the key, and each
//! write counts only while it still holds it: one that was frozen for longer than its lease can write nothing.

mod pushes;

use std::{
    fmt,
    path::Path,
    sync::Arc,
    time::{Duration, Instant},
};

use redb::{Database, DatabaseError, ReadableDatabase, ReadableTable, TableDefinition};
use tidegate_core::healing::center::record::Change;
use tidegate_xds::etcd::{Error, Etcd, Holder, OPERATIONS_MAX, Write};

pub(super) use pushes::{Pushes, Saved};

use super::Keep;
use crate::{
    exit::{Exit, Failure},
    status::unix_ms,
};

/// How long etcd may take for an answer. Less than half of the lease, so that one lost answer does not
/// cost it.
const PATIENCE: Duration = Duration::from_secs(2);

/// A leader that is gone is replaced after this at the latest.
const LEASE: Duration = Duration::from_secs(5);

/// A leader that could not renew its lease for so long says itself that it leads no more: before others can.
const LEASE_DOUBT: Duration = Duration::from_secs(4);

/// Under this everything is kept in etcd.
const PREFIX: &str = "/tidegate/healing/v1/";

/// Records by key.
const RECORDS: TableDefinition<'_, &str, &str> = TableDefinition::new("records");
/// Numbers by name.
const NUMBERS: TableDefinition<'_, &str, u64> = TableDefinition::new("numbers");
const EPOCH: &str = "epoch";

/// Why something was not stored.
#[derive(Debug)]
pub(super) struct StoreError(String);

impl fmt::Display for StoreError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        StoreError(error.to_string())
    }
}

impl From<redb::Error> for StoreError {
    fn from(error: redb::Error) -> Self {
        StoreError(error.to_string())
    }
}

/// Whether we lead now.
pub(super) enum Role {
    /// We do, in this epoch, and this was stored.
    Leader {
        /// The fencing epoch.
        epoch: u64,
        /// Keys and values.
        saved: Vec<(String, String)>,
    },
    /// Another does.
    Follower {
        /// Its address, if it is known.
        leader: Option<Box<str>>,
    },
}

/// A store.
pub(super) enum Store {
    /// In a file, or in memory.
    Embedded(Arc<Database>),
    /// In etcd.
    Shared(Box<Shared>),
}

/// The state in etcd, and our part in it.
pub(super) struct Shared {
    etcd: Etcd,
    /// What we write as leader: the address that proxies are told.
    address: Box<str>,
    /// Our lease, if we have one.
    lease: Option<i64>,
    /// When the lease was last known to be good.
    renewed: Instant,
    /// The revision since which we lead.
    revision: i64,
}

impl Store {
    /// Opens a store; to be called on a runtime.
    pub(super) fn open(keep: &Keep, address: Box<str>) -> Result<Store, Failure> {
        match keep {
            Keep::Memory => {
                tracing::warn!("healing center: no --store: the state ends with the process");
                let backend = redb::backends::InMemoryBackend::new();
                let database = Database::builder().create_with_backend(backend);
                let database = database.map_err(|e| unfit(Path::new("memory"), &e))?;
                Ok(Store::Embedded(Arc::new(database)))
            }
            Keep::File(path) => {
                let database = Database::create(path).map_err(|e| unfit(path, &e))?;
                Ok(Store::Embedded(Arc::new(database)))
            }
            Keep::Etcd(urls) => {
                let etcd = Etcd::new(urls, PATIENCE).map_err(|e| {
                    Failure::new(Exit::Usage, e.to_string(), "--etcd takes http://HOST:PORT")
                })?;
                Ok(Store::Shared(Box::new(Shared {
                    etcd,
                    address,
                    lease: None,
                    renewed: Instant::now(),
                    revision: 0,
                })))
            }
        }
    }

    /// Where the pushes of a control plane are kept, if they are: each center has its own.
    pub(super) fn pushes(&self) -> Option<Pushes> {
        match self {
            Store::Embedded(database) => Some(Pushes(database.clone())),
            Store::Shared(_) => None,
        }
    }

    /// Tries to lead.
    pub(super) async fn campaign(&mut self) -> Result<Role, StoreError> {
        match self {
            Store::Embedded(database) => {
                let database = database.clone();
                let (epoch, saved) = blocking(move || lead(&database, unix_ms())).await?;
                Ok(Role::Leader { epoch, saved })
            }
            Store::Shared(shared) => shared.campaign().await,
        }
    }

    /// Keeps the lead; false once it is lost.
    pub(super) async fn renew(&mut self) -> bool {
        match self {
            Store::Embedded(_) => true,
            Store::Shared(shared) => shared.renew().await,
        }
    }

    /// Stores changes in their order. If it fails, some of them may be stored: they are the same when they
    /// are made again.
    pub(super) async fn commit(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        match self {
            Store::Embedded(database) => {
                let database = database.clone();
                blocking(move || write(&database, &changes)).await
            }
            Store::Shared(shared) => shared.write(changes).await,
        }
    }

    /// Gives up the lead, so that another need not wait for the lease to end.
    pub(super) async fn resign(&mut self) {
        if let Store::Shared(shared) = self
            && let Some(lease) = shared.lease.take()
            && let Err(e) = shared.etcd.revoke(lease).await
        {
            tracing::debug!("healing center: {e}");
        }
    }
}

impl Shared {
    async fn campaign(&mut self) -> Result<Role, StoreError> {
        let lease = self.lease().await?;
        let key = format!("{PREFIX}leader");
        match self.etcd.campaign(&key, &self.address, lease).await? {
            Holder::Us(revision) => {
                self.revision = revision;
                self.renewed = Instant::now();
                let records = format!("{PREFIX}record/");
                let saved = self.etcd.range(&records).await?;
                let saved = saved.into_iter().map(|(key, value)| {
                    let key = key.strip_prefix(&records).unwrap_or(&key);
                    (key.to_owned(), value)
                });
                Ok(Role::Leader {
                    epoch: u64::try_from(revision).unwrap_or(0),
                    saved: saved.collect(),
                })
            }
            // We won earlier, and did not get to read it: give it back, and win again.
            Holder::Other(address) if *address == *self.address => {
                self.lease = None;
                self.etcd.revoke(lease).await?;
                Ok(Role::Follower { leader: None })
            }
            Holder::Other(address) => Ok(Role::Follower {
                leader: Some(address.into()),
            }),
        }
    }

    /// A lease that is good: the one we have, or a new one.
    async fn lease(&mut self) -> Result<i64, StoreError> {
        if let Some(lease) = self.lease
            && self.etcd.keep_alive(lease).await?
        {
            return Ok(lease);
        }
        let lease = self.etcd.grant(LEASE).await?;
        self.lease = Some(lease);
        Ok(lease)
    }

    async fn renew(&mut self) -> bool {
        let Some(lease) = self.lease else {
            return false;
        };
        // The time before the question: the answer may be late.
        let asked = Instant::now();
        match self.etcd.keep_alive(lease).await {
            Ok(true) => self.renewed = asked,
            Ok(false) => return false,
            Err(e) => tracing::debug!("healing center: {e}"),
        }
        self.renewed.elapsed() < LEASE_DOUBT
    }

    async fn write(&mut self, changes: Vec<Change>) -> Result<(), StoreError> {
        let key = format!("{PREFIX}leader");
        let writes: Vec<Write> = changes
            .into_iter()
            .map(|change| {
                let key = format!("{PREFIX}record/{}", change.key);
                match change.value {
                    Some(value) => Write::Put(key, value),
                    None => Write::Delete(key),
                }
            })
            .collect();
        for part in writes.chunks(OPERATIONS_MAX) {
            self.etcd.write(&key, self.revision, part).await?;
        }
        Ok(())
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, redb::Error> + Send + 'static,
) -> Result<T, StoreError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => Ok(done?),
        Err(e) => Err(StoreError(e.to_string())),
    }
}

/// Begins an epoch, of at least `epoch_min`, and reads everything.
fn lead(database: &Database, epoch_min: u64) -> Result<(u64, Vec<(String, String)>), redb::Error> {
    let transaction = database.begin_write()?;
    let epoch = {
        let mut numbers = transaction.open_table(NUMBERS)?;
        let last = numbers.get(EPOCH)?.map_or(0, |epoch| epoch.value());
        let epoch = epoch_min.max(last + 1);
        numbers.insert(EPOCH, epoch)?;
        // So that it can be read below.
        transaction.open_table(RECORDS)?;
        epoch
    };
    transaction.commit()?;
    let records = database.begin_read()?.open_table(RECORDS)?;
    let mut saved = Vec::new();
    for record in records.iter()? {
        let (key, value) = record?;
        saved.push((key.value().to_owned(), value.value().to_owned()));
    }
    Ok((epoch, saved))
}

/// One transaction, on the disk when it returns.
fn write(database: &Database, changes: &[Change]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut records = transaction.open_table(RECORDS)?;
        for change in changes {
            match &change.value {
                Some(value) => records.insert(&*change.key, &**value)?,
                None => records.remove(&*change.key)?,
            };
        }
    }
    transaction.commit()?;
    Ok(())
}

fn unfit(path: &Path, error: &DatabaseError) -> Failure {
    let remedy = match error {
        DatabaseError::DatabaseAlreadyOpen => {
            "another center uses it: give each its own, or let them share etcd with --etcd"
        }
        _ => "--store needs a file that this user may write, made by a center or not there yet",
    };
    Failure::new(
        Exit::HostUnfit,
        format!("store `{}`: {error}", path.display()),
        remedy,
    )
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: an epoch is never used twice, whatever the clock does, and what was written is read (H12).
    /// Method: clocks that go on, stand and go back.
    #[test]
    fn epochs_only_grow() {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).unwrap();
        let change = |key: &str, value: Option<&str>| Change {
            key: key.into(),
            value: value.map(Into::into),
        };
        for (clock, epoch) in [(100, 100), (100, 101), (50, 102), (200, 200)] {
            assert_eq!(lead(&database, clock).unwrap().0, epoch);
        }
        let changes = [
            change("b", Some("2")),
            change("a", Some("1")),
            change("b", None),
        ];
        write(&database, &changes).unwrap();
        assert_eq!(lead(&database, 0).unwrap().1, [("a".into(), "1".into())]);
    }
}
