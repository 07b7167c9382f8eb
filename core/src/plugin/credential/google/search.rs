//! Where Google's own tools keep their credentials, in the order in which they look.

use std::path::{Path, PathBuf};

use super::super::Secret;

const FILE_BYTES_MAX: u64 = 64 * 1024;

/// The JSON of the file that `Google()` means, or None for the metadata server.
///
/// `GOOGLE_APPLICATION_CREDENTIALS`, then `application_default_credentials.json` in `$CLOUDSDK_CONFIG` or
/// `~/.config/gcloud`, then the metadata server, unless `NO_GCE_CHECK=true`.
pub fn default_account() -> Result<Option<Secret>, String> {
    search(&|name| std::env::var(name).ok().filter(|value| !value.is_empty()))
}

fn search(variable: &dyn Fn(&str) -> Option<String>) -> Result<Option<Secret>, String> {
    if let Some(path) = variable("GOOGLE_APPLICATION_CREDENTIALS") {
        return read(Path::new(&path)).map(Some);
    }
    let folder = variable("CLOUDSDK_CONFIG").map(PathBuf::from);
    let folder =
        folder.or_else(|| variable("HOME").map(|home| Path::new(&home).join(".config/gcloud")));
    let file = folder.map(|folder| folder.join("application_default_credentials.json"));
    if let Some(file) = file.filter(|file| file.exists()) {
        return read(&file).map(Some);
    }
    if variable("NO_GCE_CHECK").is_some_and(|value| value.eq_ignore_ascii_case("true")) {
        let message = "no Google credentials were found: name a file, set GOOGLE_APPLICATION_CREDENTIALS or \
                       run `gcloud auth application-default login` (NO_GCE_CHECK rules out the metadata server)";
        return Err(message.into());
    }
    Ok(None)
}

fn read(path: &Path) -> Result<Secret, String> {
    let problem = |error: std::io::Error| format!("cannot read {}: {error}", path.display());
    if std::fs::metadata(path).map_err(problem)?.len() > FILE_BYTES_MAX {
        return Err(format!("{} is too large for a credential", path.display()));
    }
    std::fs::read_to_string(path)
        .map(Secret::new)
        .map_err(problem)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;

    #[test]
    fn credentials_are_looked_for_in_googles_order() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name).display().to_string();
        std::fs::create_dir_all(at("home/.config/gcloud")).unwrap();
        std::fs::create_dir_all(at("sdk")).unwrap();
        let default = "application_default_credentials.json";
        std::fs::write(at("named"), "named").unwrap();
        std::fs::write(at(&format!("sdk/{default}")), "sdk").unwrap();
        std::fs::write(at(&format!("home/.config/gcloud/{default}")), "home").unwrap();
        let found = |variables: &[(&str, String)]| {
            let variables: BTreeMap<_, _> = variables.iter().cloned().collect();
            search(&|name| variables.get(name).cloned())
                .map(|found| found.map(|secret| secret.expose().to_owned()))
        };
        let named = ("GOOGLE_APPLICATION_CREDENTIALS", at("named"));
        let sdk = ("CLOUDSDK_CONFIG", at("sdk"));
        let home = ("HOME", at("home"));
        let some = |text: &str| Ok(Some(text.to_owned()));
        assert_eq!(found(&[named, sdk.clone(), home.clone()]), some("named"));
        assert_eq!(found(&[sdk, home.clone()]), some("sdk"));
        assert_eq!(found(&[home]), some("home"));
        assert_eq!(found(&[("HOME", at("nobody"))]), Ok(None));
        let nowhere = found(&[("NO_GCE_CHECK", "true".into())]);
        assert!(nowhere.unwrap_err().contains("no Google credentials"));
        let gone = ("GOOGLE_APPLICATION_CREDENTIALS", at("gone"));
        assert!(found(&[gone]).unwrap_err().contains("cannot read"));
    }
}
