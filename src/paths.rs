//! Where things are on this machine: the configuration, the data directory and the cache, as XDG says.

use etcetera::BaseStrategy as _;
use std::path::{Path, PathBuf};

/// The name of the configuration file, wherever it lies.
pub const CONFIG_NAME: &str = "monitor.ron";

/// The directories of the user that runs this process.
#[derive(Clone, Debug)]
pub struct Paths {
    home: PathBuf,
    config: PathBuf,
    data: PathBuf,
    cache: PathBuf,
}

impl Paths {
    /// From the environment. A service without a home still gets absolute paths.
    pub fn of_user() -> Paths {
        match etcetera::base_strategy::Xdg::new() {
            Ok(xdg) => Paths {
                home: xdg.home_dir().to_owned(),
                config: xdg.config_dir(),
                data: xdg.data_dir(),
                cache: xdg.cache_dir(),
            },
            Err(_) => Paths::below(Path::new("/")),
        }
    }

    /// As for a user whose home is `home` and who set no XDG variables.
    pub fn below(home: &Path) -> Paths {
        Paths {
            home: home.to_owned(),
            config: home.join(".config"),
            data: home.join(".local/share"),
            cache: home.join(".cache"),
        }
    }

    pub fn home(&self) -> &Path {
        &self.home
    }

    /// Where a configuration is looked for when none is named, in this order.
    pub fn config_candidates(&self) -> Vec<PathBuf> {
        vec![
            PathBuf::from(".").join(CONFIG_NAME),
            self.config.join("weir").join(CONFIG_NAME),
            Path::new("/etc/weir").join(CONFIG_NAME),
        ]
    }

    /// The data directory where neither the configuration nor the command line names one.
    pub fn data_dir(&self) -> PathBuf {
        self.data.join("weir")
    }

    /// What may be deleted at any time: compiled plugins.
    pub fn cache_dir(&self) -> PathBuf {
        self.cache.join("weir")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_beside_the_caller_comes_before_the_users_and_the_machines() {
        let paths = Paths::below(Path::new("/home/ada"));
        assert_eq!(
            paths.config_candidates(),
            [
                Path::new("./monitor.ron"),
                Path::new("/home/ada/.config/weir/monitor.ron"),
                Path::new("/etc/weir/monitor.ron"),
            ]
        );
        assert_eq!(paths.data_dir(), Path::new("/home/ada/.local/share/weir"));
    }
}
