//! The easy way to a plugin: implement two traits, name the type in one macro.
//!
//! [`crate::alert_handler!`] and [`crate::job_source!`] make the component's exports. A plugin that exports more (`streams`,
//! `control`, `logs`) uses `wit_bindgen::generate!` itself, as `plugins/comfyui` does.

use serde::de::DeserializeOwned;

use crate::{Failure, Far};

pub use crate::contract::bindings::exports::weir::plugin::alerts::{
    Alert, Notification, Severity, Status,
};
pub use crate::contract::bindings::exports::weir::plugin::jobs::{Coverage, Page};

/// Who opened the plugin.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Context {
    /// The name in monitor.ron.
    pub name: String,
    /// Made once for this source or receiver: the same in every instance and after every restart.
    pub uuid: String,
}

/// What every plugin has. One value of the type is one instance; weir may throw it away between any two calls.
pub trait Plugin: Sized + 'static {
    /// What `config` in monitor.ron is parsed into. `#[serde(deny_unknown_fields)]` finds the operator's typing mistakes.
    type Config: DeserializeOwned;

    const NAME: &'static str;
    const VERSION: &'static str;
    /// A JSON schema of `config`; `weir plugin inspect` shows it.
    const CONFIG_SCHEMA: Option<&'static str> = None;

    /// Once per instance, before any other call. No request is due here: `check` makes the first one.
    fn open(config: Self::Config, context: Context) -> Result<Self, Failure>;

    /// Reaches the far side and changes nothing; says what is there.
    fn check(&self, far: &impl Far) -> Result<String, Failure>;
}

/// A plugin that delivers notifications.
pub trait AlertHandler: Plugin {
    /// `Ok` = delivered; what it returns comes back as `prior` with the next notification of the same `key`.
    fn deliver(
        &self,
        far: &impl Far,
        notification: &Notification,
        prior: Option<&str>,
    ) -> Result<Option<String>, Failure>;
}

/// A plugin that watches jobs.
pub trait JobSource: Plugin {
    /// One page of what the far side shows. `open` are the unfinished jobs that weir knows, oldest first.
    fn poll(
        &self,
        far: &impl Far,
        cursor: Option<&str>,
        open: &[crate::JobRef],
    ) -> Result<Page, Failure>;
}

/// What the macros put between the exports and the plugin.
#[doc(hidden)]
pub mod glue {
    use super::{Context, Plugin};
    use crate::{Failure, config, failure, install_panic_hook};

    pub use std::cell::OnceCell;

    pub fn open<P: Plugin>(
        cell: &OnceCell<P>,
        json: &str,
        context: Context,
    ) -> Result<(), Failure> {
        install_panic_hook();
        let plugin = P::open(config::parse(json)?, context)?;
        // A second open of one instance changes nothing: an instance has one configuration.
        let _ = cell.set(plugin);
        Ok(())
    }

    pub fn opened<P>(cell: &OnceCell<P>) -> Result<&P, Failure> {
        cell.get()
            .ok_or_else(|| failure::misconfigured("called before open"))
    }
}

/// Everything that both kinds of components export. Not to be used alone.
#[doc(hidden)]
#[macro_export]
macro_rules! __lifecycle {
    ($plugin:ty, $world:ident) => {
        use $crate::contract::bindings::exports::weir::plugin as contract;
        use $crate::contract::bindings::exports::weir::plugin::lifecycle;

        pub(super) struct Component;

        #[used]
        #[unsafe(link_section = concat!("component-type:weir-sdk:", stringify!($world)))]
        static WORLD: [u8; $crate::contract::$world.len()] = {
            let mut bytes = [0; $crate::contract::$world.len()];
            bytes.copy_from_slice($crate::contract::$world);
            bytes
        };

        $crate::contract::bindings::exports::weir::plugin::lifecycle::__export_weir_plugin_lifecycle_0_1_0_cabi!(
            Component with_types_in $crate::contract::bindings::exports::weir::plugin::lifecycle
        );

        thread_local! {
            // A component has one thread.
            static PLUGIN: $crate::plugin::glue::OnceCell<$plugin> =
                const { $crate::plugin::glue::OnceCell::new() };
        }

        impl lifecycle::Guest for Component {
            fn describe() -> lifecycle::Manifest {
                $crate::install_panic_hook();
                lifecycle::Manifest {
                    name: <$plugin as $crate::plugin::Plugin>::NAME.to_owned(),
                    version: <$plugin as $crate::plugin::Plugin>::VERSION.to_owned(),
                    config_schema: <$plugin as $crate::plugin::Plugin>::CONFIG_SCHEMA
                        .map(str::to_owned),
                }
            }

            fn open(context: lifecycle::Context) -> Result<(), $crate::Failure> {
                let opened = $crate::plugin::Context {
                    name: context.name,
                    uuid: context.uuid,
                };
                PLUGIN.with(|cell| $crate::plugin::glue::open(cell, &context.config, opened))
            }

            fn check() -> Result<String, $crate::Failure> {
                PLUGIN.with(|cell| {
                    $crate::plugin::Plugin::check(
                        $crate::plugin::glue::opened(cell)?,
                        &$crate::Host,
                    )
                })
            }
        }
    };
}

/// Makes the component's exports for a type that is an [`AlertHandler`]. Once per crate, of the type `cdylib`.
#[macro_export]
macro_rules! alert_handler {
    ($plugin:ty) => {
        const _: () = {
            const fn is_alert_handler<P: $crate::plugin::AlertHandler>() {}
            is_alert_handler::<$plugin>()
        };

        #[cfg(target_arch = "wasm32")]
        mod __weir_component {
            #[allow(unused_imports, reason = "the type may be named by any path")]
            use super::*;

            $crate::__lifecycle!($plugin, ALERT_HANDLER);

            impl contract::alerts::Guest for Component {
                fn deliver(
                    notification: $crate::plugin::Notification,
                    prior: Option<String>,
                ) -> Result<Option<String>, $crate::Failure> {
                    PLUGIN.with(|cell| {
                        $crate::plugin::AlertHandler::deliver(
                            $crate::plugin::glue::opened(cell)?,
                            &$crate::Host,
                            &notification,
                            prior.as_deref(),
                        )
                    })
                }
            }

            $crate::contract::bindings::exports::weir::plugin::alerts::__export_weir_plugin_alerts_0_1_0_cabi!(
                Component with_types_in $crate::contract::bindings::exports::weir::plugin::alerts
            );
        }
    };
}

/// Makes the component's exports for a type that is a [`JobSource`]. Once per crate, of the type `cdylib`.
#[macro_export]
macro_rules! job_source {
    ($plugin:ty) => {
        const _: () = {
            const fn is_job_source<P: $crate::plugin::JobSource>() {}
            is_job_source::<$plugin>()
        };

        #[cfg(target_arch = "wasm32")]
        mod __weir_component {
            #[allow(unused_imports, reason = "the type may be named by any path")]
            use super::*;

            $crate::__lifecycle!($plugin, JOB_SOURCE);

            impl contract::jobs::Guest for Component {
                fn poll(
                    cursor: Option<String>,
                    open: Vec<$crate::JobRef>,
                ) -> Result<$crate::plugin::Page, $crate::Failure> {
                    PLUGIN.with(|cell| {
                        $crate::plugin::JobSource::poll(
                            $crate::plugin::glue::opened(cell)?,
                            &$crate::Host,
                            cursor.as_deref(),
                            &open,
                        )
                    })
                }
            }

            $crate::contract::bindings::exports::weir::plugin::jobs::__export_weir_plugin_jobs_0_1_0_cabi!(
                Component with_types_in $crate::contract::bindings::exports::weir::plugin::jobs
            );
        }
    };
}
