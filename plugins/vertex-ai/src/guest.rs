//! The exports: nothing but a way from the contract to `source`, `control` and `logs`.

use std::cell::RefCell;

use weir_sdk::bindings::weir::plugin::types::JobRef;
use weir_sdk::{Failure, Host, failure};

use crate::bindings::exports::weir::plugin::{control, jobs, lifecycle, logs};
use crate::config::{CONFIG_SCHEMA, Config};
use crate::source::Source;

struct Plugin;

thread_local! {
    static SOURCE: RefCell<Option<Source>> = const { RefCell::new(None) };
}

fn with_source<T>(run: impl FnOnce(&mut Source) -> Result<T, Failure>) -> Result<T, Failure> {
    SOURCE.with_borrow_mut(|source| match source {
        Some(source) => run(source),
        None => Err(failure::misconfigured("called before open")),
    })
}

impl lifecycle::Guest for Plugin {
    fn describe() -> lifecycle::Manifest {
        lifecycle::Manifest {
            name: "vertex-ai".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_schema: Some(CONFIG_SCHEMA.to_owned()),
        }
    }

    fn open(context: lifecycle::Context) -> Result<(), Failure> {
        weir_sdk::install_panic_hook();
        let source = Source::new(Config::parse(&context.config)?);
        SOURCE.with_borrow_mut(|slot| *slot = Some(source));
        Ok(())
    }

    fn check() -> Result<String, Failure> {
        with_source(|source| source.check(&Host))
    }
}

impl jobs::Guest for Plugin {
    fn poll(cursor: Option<String>, open: Vec<JobRef>) -> Result<jobs::Page, Failure> {
        with_source(|source| source.poll(&Host, cursor.as_deref(), &open))
    }
}

impl control::Guest for Plugin {
    fn cancel(job: JobRef) -> Result<(), Failure> {
        with_source(|source| crate::control::cancel(&Host, &source.config, &job))
    }

    fn retry(key: String, job: JobRef) -> Result<control::Submission, Failure> {
        with_source(|source| crate::control::retry(&Host, &source.config, &key, &job))
    }

    fn submit(
        key: String,
        _content_type: String,
        body: Vec<u8>,
    ) -> Result<control::Submission, Failure> {
        with_source(|source| crate::control::submit(&Host, &source.config, &key, &body))
    }
}

impl logs::Guest for Plugin {
    fn read(
        job: JobRef,
        direction: logs::Direction,
        cursor: Option<String>,
    ) -> Result<logs::LogPage, Failure> {
        with_source(|source| {
            crate::logs::read(&Host, &source.config, &job, direction, cursor.as_deref())
        })
    }
}

crate::bindings::export!(Plugin with_types_in crate::bindings);
