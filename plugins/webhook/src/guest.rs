//! The exports: nothing but a way from the contract to `payload`.

use std::sync::OnceLock;

use weir_sdk::{Failure, Host, config, failure};

use crate::bindings::exports::weir::plugin::{alerts, lifecycle};
use crate::payload::{CONFIG_SCHEMA, Webhook};

struct Plugin;

static WEBHOOK: OnceLock<Webhook> = OnceLock::new();

fn webhook() -> Result<&'static Webhook, Failure> {
    WEBHOOK
        .get()
        .ok_or_else(|| failure::misconfigured("called before open"))
}

impl lifecycle::Guest for Plugin {
    fn describe() -> lifecycle::Manifest {
        lifecycle::Manifest {
            name: "webhook".to_owned(),
            version: env!("CARGO_PKG_VERSION").to_owned(),
            config_schema: Some(CONFIG_SCHEMA.to_owned()),
        }
    }

    fn open(context: lifecycle::Context) -> Result<(), Failure> {
        weir_sdk::install_panic_hook();
        let webhook = Webhook::new(config::parse(&context.config)?)?;
        // A second open of one instance changes nothing: an instance has one configuration.
        let _ = WEBHOOK.set(webhook);
        Ok(())
    }

    fn check() -> Result<String, Failure> {
        webhook()?.check(&Host)
    }
}

impl alerts::Guest for Plugin {
    fn deliver(
        notification: alerts::Notification,
        _prior: Option<String>,
    ) -> Result<Option<String>, Failure> {
        webhook()?.deliver(&Host, &notification)?;
        Ok(None)
    }
}

crate::bindings::export!(Plugin with_types_in crate::bindings);
