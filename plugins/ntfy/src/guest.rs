//! The exports: nothing but a way from the contract to `message`.

use std::sync::OnceLock;

use weir_sdk::{Failure, Host, config, failure};

use crate::bindings::exports::weir::plugin::{alerts, lifecycle};
use crate::message::{CONFIG_SCHEMA, Ntfy};

struct Plugin;

static NTFY: OnceLock<Ntfy> = OnceLock::new();

fn ntfy() -> Result<&'static Ntfy, Failure> {
    NTFY.get()
        .ok_or_else(|| failure::misconfigured("called before open"))
}

impl lifecycle::Guest for Plugin {
    fn describe() -> lifecycle::Manifest {
        lifecycle::Manifest {
            name: "ntfy".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_schema: Some(CONFIG_SCHEMA.to_owned()),
        }
    }

    fn open(context: lifecycle::Context) -> Result<(), Failure> {
        weir_sdk::install_panic_hook();
        let ntfy = Ntfy::new(config::parse(&context.config)?)?;
        // A second open of one instance changes nothing: an instance has one configuration.
        let _ = NTFY.set(ntfy);
        Ok(())
    }

    fn check() -> Result<String, Failure> {
        ntfy()?.check(&Host)
    }
}

impl alerts::Guest for Plugin {
    fn deliver(
        notification: alerts::Notification,
        _prior: Option<String>,
    ) -> Result<Option<String>, Failure> {
        ntfy()?.deliver(&Host, &notification)?;
        Ok(None)
    }
}

crate::bindings::export!(Plugin with_types_in crate::bindings);
