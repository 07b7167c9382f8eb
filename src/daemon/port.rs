//! Who holds a port, as far as `/proc` may be read.

use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::path::Path;

/// Bytes of a table in `/proc/net` that are looked at.
const TABLE_LEN_MAX: u64 = 8 << 20;
/// `st` of a listening socket.
const LISTENING: &str = "0A";

/// The process that listens on the port of `address`: "weir (pid 123)". None where that is not to be known.
pub fn holder_of(address: SocketAddr) -> Option<String> {
    let inode = ["/proc/net/tcp", "/proc/net/tcp6"]
        .into_iter()
        .filter_map(|table| read_bounded(Path::new(table)))
        .find_map(|table| listening_inode(&table, address.port()).map(str::to_owned))?;
    let socket = format!("socket:[{inode}]");
    let processes = fs::read_dir("/proc").ok()?.flatten();
    for process in processes {
        let name = process.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse::<u32>().ok()) else {
            continue;
        };
        let Ok(files) = fs::read_dir(process.path().join("fd")) else {
            continue;
        };
        let holds = |file: fs::DirEntry| {
            fs::read_link(file.path()).is_ok_and(|target| target.as_os_str() == socket.as_str())
        };
        if files.flatten().any(holds) {
            let command = read_bounded(&process.path().join("comm")).unwrap_or_default();
            return Some(format!("{} (pid {pid})", command.trim()));
        }
    }
    None
}

fn read_bounded(path: &Path) -> Option<String> {
    let mut text = String::new();
    fs::File::open(path)
        .ok()?
        .take(TABLE_LEN_MAX)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

/// The inode of the socket that listens on `port`, by a table of `/proc/net`.
fn listening_inode(table: &str, port: u16) -> Option<&str> {
    table.lines().skip(1).find_map(|line| {
        let mut columns = line.split_ascii_whitespace();
        let (_, local) = columns.nth(1)?.rsplit_once(':')?;
        let state = columns.nth(1)?;
        let inode = columns.nth(5)?;
        let ours = u16::from_str_radix(local, 16) == Ok(port) && state == LISTENING && inode != "0";
        ours.then_some(inode)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::{Ipv4Addr, TcpListener};

    #[test]
    fn the_table_tells_the_inode_of_a_listening_socket_only() {
        let table = "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n   \
            0: 0100007F:1F40 0100007F:C000 01 00000000:00000000 00:00000000 00000000  1000        0 11 1\n   \
            1: 0100007F:1F40 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 22 1\n";
        assert_eq!(listening_inode(table, 8000), Some("22"));
        assert_eq!(listening_inode(table, 8001), None);
    }

    #[test]
    fn our_own_listener_is_found() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
        let holder = holder_of(listener.local_addr().unwrap()).unwrap();
        assert!(
            holder.ends_with(&format!("(pid {})", std::process::id())),
            "{holder}"
        );
    }
}
