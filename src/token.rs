//! The token of the command line: made once in the data directory, readable for its owner alone.

use std::fs::{File, Permissions};
use std::io::{self, Read as _, Write as _};
use std::os::unix::fs::{MetadataExt as _, PermissionsExt as _};
use std::path::{Path, PathBuf};

/// The file's name inside the data directory.
pub const FILE_NAME: &str = "cli.token";
/// Longer than any token.
const LEN_MAX: u64 = 4096;
/// A shorter one could be guessed.
const LEN_MIN: usize = 16;

/// Where the token of a daemon with this data directory is.
pub fn path(data_dir: &Path) -> PathBuf {
    data_dir.join(FILE_NAME)
}

/// Makes the token if there is none: 256 random bits as hex, 0600. One that others can read is closed to them.
pub fn ensure(data_dir: &Path) -> io::Result<PathBuf> {
    let path = path(data_dir);
    match read(&path) {
        Ok(_) => {
            let mode = File::open(&path)?.metadata()?.mode();
            if mode & 0o077 != 0 {
                tracing::warn!(path = %path.display(), "others could read the token; they cannot any more");
                std::fs::set_permissions(&path, Permissions::from_mode(0o600))?;
            }
            return Ok(path);
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        // An empty or a torn one is made anew; one that cannot be read is somebody else's.
        Err(error) if error.kind() == io::ErrorKind::InvalidData => {}
        Err(error) => return Err(error),
    }
    // Complete before it has its name.
    let mut file = tempfile::Builder::new()
        .permissions(Permissions::from_mode(0o600))
        .tempfile_in(data_dir)?;
    let bytes: [u8; 32] = rand::random();
    let token: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    file.write_all(token.as_bytes())?;
    file.write_all(b"\n")?;
    file.as_file().sync_all()?;
    file.persist(&path).map_err(|error| error.error)?;
    Ok(path)
}

/// The token in a file: one line of printable ASCII.
pub fn read(path: &Path) -> io::Result<String> {
    let mut text = String::new();
    File::open(path)?.take(LEN_MAX).read_to_string(&mut text)?;
    let token = text.trim();
    if token.len() < LEN_MIN || !token.chars().all(|c| c.is_ascii_graphic()) {
        let message = "it holds no token (one line of 16 or more printable characters)";
        return Err(io::Error::new(io::ErrorKind::InvalidData, message));
    }
    Ok(token.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_made_once_and_belongs_to_its_owner_alone() {
        let dir = tempfile::tempdir().unwrap();
        let path = ensure(dir.path()).unwrap();
        let token = read(&path).unwrap();
        assert_eq!(token.len(), 64);
        std::fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
        assert_eq!(ensure(dir.path()).unwrap(), path);
        assert_eq!(read(&path).unwrap(), token, "it stays");
        assert_eq!(std::fs::metadata(&path).unwrap().mode() & 0o777, 0o600);
        let other = tempfile::tempdir().unwrap();
        assert_ne!(read(&ensure(other.path()).unwrap()).unwrap(), token);
    }

    #[test]
    fn an_empty_file_is_no_token() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(path(dir.path()), "\n").unwrap();
        assert!(read(&path(dir.path())).is_err());
        ensure(dir.path()).unwrap();
        assert_eq!(read(&path(dir.path())).unwrap().len(), 64);
    }
}
