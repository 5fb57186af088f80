//! The pushes of the control plane, in the file of the center: so that a way back, a canary and what was withdrawn
//! outlive the process.

use std::{collections::BTreeMap, sync::Arc};

use redb::{Database, ReadableDatabase, ReadableTable, TableDefinition};

use super::{StoreError, blocking};

/// Encoded worlds by the numbers of their pushes.
const WORLDS: TableDefinition<'_, u64, &[u8]> = TableDefinition::new("worlds");
/// How they stand, under one key.
const ROLLOUT: TableDefinition<'_, &str, &str> = TableDefinition::new("rollout");
const STANDING: &str = "standing";

/// Where pushes are kept.
#[derive(Clone)]
pub(in crate::center) struct Pushes(pub(super) Arc<Database>);

/// What is kept of them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(in crate::center) struct Saved {
    /// How they stand, in the words of the rollout.
    pub(in crate::center) standing: String,
    /// Encoded worlds by the numbers of their pushes.
    pub(in crate::center) worlds: BTreeMap<u64, Vec<u8>>,
}

impl Pushes {
    /// What was kept last; nothing in a new store.
    pub(in crate::center) fn load(&self) -> Result<Option<Saved>, StoreError> {
        Ok(load(&self.0)?)
    }

    /// Numbers of the pushes that are kept.
    pub(in crate::center) fn numbers(&self) -> Result<Vec<u64>, StoreError> {
        Ok(numbers(&self.0)?)
    }

    /// Keeps these worlds beside those that are there already, of them only `keep`, and how they stand: all or nothing.
    pub(in crate::center) async fn save(
        &self,
        saved: Saved,
        keep: Vec<u64>,
    ) -> Result<(), StoreError> {
        let database = self.0.clone();
        blocking(move || save(&database, &saved, &keep)).await
    }
}

fn load(database: &Database) -> Result<Option<Saved>, redb::Error> {
    open(database)?;
    let transaction = database.begin_read()?;
    let rollout = transaction.open_table(ROLLOUT)?;
    let Some(standing) = rollout.get(STANDING)? else {
        return Ok(None);
    };
    let mut worlds = BTreeMap::new();
    for world in transaction.open_table(WORLDS)?.iter()? {
        let (number, bytes) = world?;
        worlds.insert(number.value(), bytes.value().to_vec());
    }
    Ok(Some(Saved {
        standing: standing.value().to_owned(),
        worlds,
    }))
}

fn numbers(database: &Database) -> Result<Vec<u64>, redb::Error> {
    open(database)?;
    let worlds = database.begin_read()?.open_table(WORLDS)?;
    let numbers = worlds.iter()?.map(|world| Ok(world?.0.value()));
    numbers.collect()
}

/// Makes the tables, so that they can be read.
fn open(database: &Database) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    transaction.open_table(WORLDS)?;
    transaction.open_table(ROLLOUT)?;
    transaction.commit()?;
    Ok(())
}

fn save(database: &Database, saved: &Saved, keep: &[u64]) -> Result<(), redb::Error> {
    let transaction = database.begin_write()?;
    {
        let mut worlds = transaction.open_table(WORLDS)?;
        worlds.retain(|number, _| keep.contains(&number))?;
        for (number, bytes) in &saved.worlds {
            worlds.insert(number, &**bytes)?;
        }
        let mut rollout = transaction.open_table(ROLLOUT)?;
        rollout.insert(STANDING, &*saved.standing)?;
    }
    transaction.commit()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use super::*;

    /// Goal: what was kept is read, and what is not to be kept is gone. Method: an empty store, two worlds, then a third
    /// in place of the first.
    #[test]
    fn pushes_are_kept() {
        let backend = redb::backends::InMemoryBackend::new();
        let database = Database::builder().create_with_backend(backend).unwrap();
        assert_eq!(load(&database).unwrap(), None);
        let saved = |standing: &str, worlds: &[(u64, u8)]| Saved {
            standing: standing.into(),
            worlds: worlds
                .iter()
                .map(|(number, byte)| (*number, vec![*byte]))
                .collect(),
        };
        save(&database, &saved("a", &[(1, 10), (2, 20)]), &[]).unwrap();
        assert_eq!(
            load(&database).unwrap(),
            Some(saved("a", &[(1, 10), (2, 20)]))
        );
        save(&database, &saved("b", &[(3, 30)]), &[2, 3]).unwrap();
        assert_eq!(
            load(&database).unwrap(),
            Some(saved("b", &[(2, 20), (3, 30)]))
        );
        assert_eq!(numbers(&database).unwrap(), [2, 3]);
    }
}
