//! The version of a store: what is new, what is brought up to date, what is refused.

use super::backup;
use super::open::OpenError;
use super::schema::APPLICATION_ID;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior};
use std::path::{Path, PathBuf};

/// The version of weir that writes now.
const WEIR_VERSION: &str = env!("CARGO_PKG_VERSION");

/// What was found, and done about it.
#[derive(Debug, PartialEq)]
pub(super) enum Migrated {
    Created,
    Current,
    From { version: i64, backup: PathBuf },
}

/// Brings the store to the newest of `migrations`; a verified copy is made before one with content is touched.
pub(super) fn migrate(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
) -> Result<Migrated, OpenError> {
    let newest = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
    let version: i64 = pragma(connection, path, "user_version")?;
    let application: i64 = pragma(connection, path, "application_id")?;
    if version == 0 && application == 0 {
        let tables: i64 = connection
            .query_row("SELECT count(*) FROM sqlite_schema", [], |row| row.get(0))
            .map_err(|source| OpenError::of(path, source))?;
        if tables > 0 {
            return Err(OpenError::Foreign {
                path: path.to_owned(),
            });
        }
        apply(connection, path, migrations, 0)?;
        return Ok(Migrated::Created);
    }
    if application != APPLICATION_ID {
        return Err(OpenError::Foreign {
            path: path.to_owned(),
        });
    }
    if version > newest {
        return Err(OpenError::Newer {
            path: path.to_owned(),
            written_by: meta(connection, "written_by").unwrap_or_else(|| "a newer".to_owned()),
            schema: version,
            this: WEIR_VERSION,
            newest,
        });
    }
    if version == newest {
        set_meta(connection, "written_by", &WEIR_VERSION)
            .map_err(|source| OpenError::of(path, source))?;
        return Ok(Migrated::Current);
    }
    let copy = path.with_file_name(format!("weir.v{version}.backup.db"));
    backup::copy(connection, &copy).map_err(|source| OpenError::Backup {
        path: copy.clone(),
        source,
    })?;
    apply(connection, path, migrations, version)?;
    Ok(Migrated::From {
        version,
        backup: copy,
    })
}

/// All or nothing: tables, version and origin in one transaction.
fn apply(
    connection: &mut Connection,
    path: &Path,
    migrations: &[&str],
    from: i64,
) -> Result<(), OpenError> {
    let run = |connection: &mut Connection| -> rusqlite::Result<()> {
        if from == 0 {
            // Takes effect only before the first table is there.
            connection.pragma_update(None, "auto_vacuum", "INCREMENTAL")?;
        }
        let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate)?;
        for sql in migrations
            .iter()
            .skip(usize::try_from(from).unwrap_or(usize::MAX))
        {
            transaction.execute_batch(sql)?;
        }
        if from == 0 {
            transaction.pragma_update(None, "application_id", APPLICATION_ID)?;
            set_meta(
                &transaction,
                "origin",
                &uuid::Uuid::new_v4().as_bytes().as_slice(),
            )?;
            set_meta(&transaction, "created_by", &WEIR_VERSION)?;
        }
        set_meta(&transaction, "written_by", &WEIR_VERSION)?;
        let newest = i64::try_from(migrations.len()).unwrap_or(i64::MAX);
        transaction.pragma_update(None, "user_version", newest)?;
        transaction.commit()
    };
    run(connection).map_err(|source| OpenError::of(path, source))
}

pub(super) fn pragma(connection: &Connection, path: &Path, name: &str) -> Result<i64, OpenError> {
    connection
        .pragma_query_value(None, name, |row| row.get(0))
        .map_err(|source| OpenError::of(path, source))
}

/// A text from the meta table; none too where the table is not there.
fn meta(connection: &Connection, key: &str) -> Option<String> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get(0)
        })
        .optional()
        .ok()
        .flatten()
}

pub(super) fn set_meta(
    connection: &Connection,
    key: &str,
    value: &dyn rusqlite::ToSql,
) -> rusqlite::Result<()> {
    connection
        .prepare_cached("INSERT INTO meta (key, value) VALUES (?1, ?2) ON CONFLICT (key) DO UPDATE SET value = excluded.value")?
        .execute(rusqlite::params![key, value])?;
    Ok(())
}

pub(super) fn meta_integer(connection: &Connection, key: &str) -> rusqlite::Result<Option<i64>> {
    connection
        .query_row("SELECT value FROM meta WHERE key = ?1", [key], |row| {
            row.get(0)
        })
        .optional()
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: &str = "CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID; CREATE TABLE t (a); INSERT INTO t VALUES (7);";
    const TWO: &str = "ALTER TABLE t ADD COLUMN b;";

    #[test]
    fn a_copy_is_verified_beside_the_store_before_it_is_migrated() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.db");
        let mut connection = Connection::open(&path).unwrap();
        let first = migrate(&mut connection, &path, &[ONE]).unwrap();
        assert_eq!(first, Migrated::Created);
        let again = migrate(&mut connection, &path, &[ONE]).unwrap();
        assert_eq!(again, Migrated::Current);
        let Migrated::From { version, backup } =
            migrate(&mut connection, &path, &[ONE, TWO]).unwrap()
        else {
            panic!("not migrated");
        };
        assert_eq!(version, 1);
        let copy = Connection::open(&backup).unwrap();
        let (version, a): (i64, i64) = (
            pragma(&copy, &backup, "user_version").unwrap(),
            copy.query_row("SELECT a FROM t", [], |row| row.get(0))
                .unwrap(),
        );
        assert_eq!((version, a), (1, 7));
        assert_eq!(pragma(&connection, &path, "user_version").unwrap(), 2);
    }

    #[test]
    fn a_store_of_a_newer_weir_is_refused_by_name() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.db");
        let mut connection = Connection::open(&path).unwrap();
        migrate(&mut connection, &path, &[ONE, TWO]).unwrap();
        set_meta(&connection, "written_by", &"0.4.0").unwrap();
        let error = migrate(&mut connection, &path, &[ONE]).unwrap_err();
        let text = error.to_string();
        assert!(
            text.contains("written by weir 0.4.0 (schema 2), this is weir"),
            "{text}"
        );
    }

    #[test]
    fn somebody_elses_database_is_left_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("weir.db");
        let mut connection = Connection::open(&path).unwrap();
        connection.execute_batch("CREATE TABLE theirs (a)").unwrap();
        let error = migrate(&mut connection, &path, &[ONE]).unwrap_err();
        assert!(matches!(error, OpenError::Foreign { .. }), "{error}");
    }
}
