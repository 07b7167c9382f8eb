//! The plugins that the binary carries: components built from `plugins/` in this build.

use weir_core::monitor::BundledPlugin;

/// A component by the name that `plugin:` and `handler:` use.
#[derive(Clone, Copy)]
pub struct Bundled {
    pub name: &'static str,
    pub bytes: &'static [u8],
}

impl std::fmt::Debug for Bundled {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Bundled")
            .field("name", &self.name)
            .field("len", &self.bytes.len())
            .finish()
    }
}

/// In alphabetical order of their names.
pub const BUNDLED: &[Bundled] = include!(concat!(env!("OUT_DIR"), "/bundled.in"));

/// All of them, as a monitor is given them.
pub fn for_monitor() -> Vec<BundledPlugin> {
    let plugin = |bundled: &Bundled| BundledPlugin {
        name: bundled.name,
        bytes: bundled.bytes,
    };
    BUNDLED.iter().map(plugin).collect()
}

/// The bundled plugin of that name.
pub fn find(name: &str) -> Option<&'static Bundled> {
    BUNDLED.iter().find(|bundled| bundled.name == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_bundled_plugin_is_a_component() {
        let names: Vec<_> = BUNDLED.iter().map(|bundled| bundled.name).collect();
        assert_eq!(
            names,
            [
                "apprise",
                "comfyui",
                "discord",
                "ntfy",
                "pagerduty",
                "slack",
                "telegram",
                "vertex-ai",
                "webhook"
            ]
        );
        for bundled in BUNDLED {
            // The preamble of a component, which a core module does not have.
            assert_eq!(
                bundled.bytes.get(..8),
                Some(&b"\0asm\x0d\0\x01\0"[..]),
                "{}",
                bundled.name
            );
            assert!(
                bundled.bytes.len() < 1024 * 1024,
                "{} has {} bytes",
                bundled.name,
                bundled.bytes.len()
            );
        }
        assert!(find("ntfy").is_some() && find("nothing").is_none());
    }
}
