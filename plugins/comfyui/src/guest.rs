//! The exports: nothing but a way from the contract to `source`.

use std::cell::RefCell;

use weir_sdk::bindings::weir::plugin::types::JobRef;
use weir_sdk::{Failure, Host, failure};

use crate::bindings::exports::weir::plugin::{control, jobs, lifecycle, logs, streams};
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
            name: "comfyui".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_schema: Some(CONFIG_SCHEMA.to_owned()),
        }
    }

    fn open(context: lifecycle::Context) -> Result<(), Failure> {
        weir_sdk::install_panic_hook();
        let source = Source::new(Config::parse(&context.config)?, context.uuid);
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

impl streams::Guest for Plugin {
    fn endpoints() -> Result<Vec<streams::Endpoint>, Failure> {
        with_source(|source| Ok(source.endpoints()))
    }

    fn on_frames(
        _endpoint: String,
        frames: Vec<streams::Frame>,
    ) -> Result<streams::Reaction, Failure> {
        with_source(|source| source.on_frames(&Host, frames))
    }
}

impl control::Guest for Plugin {
    fn cancel(job: JobRef) -> Result<(), Failure> {
        with_source(|source| source.cancel(&Host, &job))
    }

    fn retry(key: String, job: JobRef) -> Result<control::Submission, Failure> {
        with_source(|source| source.retry(&Host, &key, &job))
    }

    fn submit(
        key: String,
        content_type: String,
        body: Vec<u8>,
    ) -> Result<control::Submission, Failure> {
        with_source(|source| source.submit(&Host, &key, &content_type, body))
    }
}

impl logs::Guest for Plugin {
    fn read(
        _job: JobRef,
        direction: logs::Direction,
        cursor: Option<String>,
    ) -> Result<logs::LogPage, Failure> {
        with_source(|source| source.read_logs(&Host, direction, cursor.as_deref()))
    }
}

crate::bindings::export!(Plugin with_types_in crate::bindings);
