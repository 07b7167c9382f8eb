//! The file systems that can fill up, each once.

use std::path::Path;

use serde::{Deserialize, Serialize};
use sysinfo::{DiskRefreshKind, Disks};

use super::Usage;

/// A host with thousands of mounts (containers) is not shown whole.
const DISKS_MAX: usize = 64;

/// In memory, made up by the kernel, or full by nature.
const NO_DISKS: [&str; 16] = [
    "autofs", "cgroup", "cgroup2", "devtmpfs", "efivarfs", "erofs", "iso9660", "nsfs", "overlay",
    "proc", "ramfs", "squashfs", "sysfs", "tmpfs", "tracefs", "udf",
];

/// One file system.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct DiskSample {
    pub mount: String,
    pub file_system: String,
    pub usage: Usage,
}

#[derive(Debug)]
struct Mounted {
    device: String,
    mount: String,
    file_system: String,
    /// Of the whole device, what is kept for root included.
    total_bytes: u64,
    /// Free for everybody.
    available_bytes: u64,
    /// Free, what is kept for root included.
    free_bytes: u64,
}

pub(super) fn sample(disks: &mut Disks) -> Vec<DiskSample> {
    disks.refresh_specifics(true, DiskRefreshKind::nothing().with_storage());
    let mounted = disks.iter().map(|disk| Mounted {
        device: disk.name().to_string_lossy().into_owned(),
        mount: disk.mount_point().to_string_lossy().into_owned(),
        file_system: disk.file_system().to_string_lossy().into_owned(),
        total_bytes: disk.total_space(),
        available_bytes: disk.available_space(),
        free_bytes: free_bytes(disk.mount_point()).unwrap_or(disk.available_space()),
    });
    choose(mounted.collect())
}

/// sysinfo does not tell it.
fn free_bytes(mount: &Path) -> Option<u64> {
    let space = rustix::fs::statvfs(mount).ok()?;
    Some(space.f_bfree.saturating_mul(space.f_frsize))
}

/// Bind mounts and subvolumes show the same device again: the shortest path speaks for it.
fn choose(mut mounted: Vec<Mounted>) -> Vec<DiskSample> {
    // In a container the root is an overlay, and it is the one file system that matters.
    mounted.retain(|disk| disk.mount == "/" || !NO_DISKS.contains(&disk.file_system.as_str()));
    mounted.sort_by(|a, b| (a.mount.len(), &a.mount).cmp(&(b.mount.len(), &b.mount)));
    let mut devices = Vec::new();
    let mut disks = Vec::new();
    for disk in mounted {
        let device = (disk.device, disk.total_bytes);
        // As df counts: what only root may fill is neither used nor to be had.
        let used = disk.total_bytes.saturating_sub(disk.free_bytes);
        let Some(usage) = Usage::of(used, used.saturating_add(disk.available_bytes)) else {
            continue;
        };
        if disks.len() < DISKS_MAX && !devices.contains(&device) {
            devices.push(device);
            disks.push(DiskSample {
                mount: disk.mount,
                file_system: disk.file_system,
                usage,
            });
        }
    }
    disks
}

#[cfg(test)]
mod tests {
    use super::*;

    fn mounted(device: &str, mount: &str, file_system: &str, total_bytes: u64) -> Mounted {
        Mounted {
            device: device.into(),
            mount: mount.into(),
            file_system: file_system.into(),
            total_bytes,
            available_bytes: total_bytes / 4,
            free_bytes: total_bytes / 4,
        }
    }

    fn check(disks: Vec<Mounted>, expected: &[&str]) {
        let mounts: Vec<String> = choose(disks).into_iter().map(|disk| disk.mount).collect();
        assert_eq!(mounts, expected);
    }

    #[test]
    fn each_device_is_shown_once_by_its_shortest_path() {
        check(
            vec![
                mounted("/dev/sda1", "/var/lib/docker", "ext4", 100),
                mounted("/dev/sda1", "/", "ext4", 100),
                mounted("/dev/sdb1", "/data", "xfs", 200),
                mounted("tmpfs", "/tmp", "tmpfs", 50),
                mounted("/dev/loop3", "/snap/core", "squashfs", 10),
                mounted("none", "/sys/empty", "ext4", 0),
            ],
            &["/", "/data"],
        );
    }

    #[test]
    fn the_root_of_a_container_counts_although_it_is_an_overlay() {
        check(
            vec![
                mounted("overlay", "/", "overlay", 100),
                mounted("overlay", "/x", "overlay", 90),
            ],
            &["/"],
        );
    }

    #[test]
    fn usage_is_what_df_says() {
        let disks = choose(vec![Mounted {
            free_bytes: 40,
            available_bytes: 15,
            ..mounted("/dev/sda1", "/", "ext4", 100)
        }]);
        let usage = disks[0].usage;
        assert_eq!(
            (usage.used_bytes, usage.total_bytes, usage.percent),
            (60, 75, 80.0)
        );
    }

    #[test]
    fn a_host_with_many_mounts_is_not_shown_whole() {
        let disks = (0..1000)
            .map(|n| mounted(&format!("/dev/{n}"), &format!("/m{n}"), "ext4", 100))
            .collect();
        assert_eq!(choose(disks).len(), DISKS_MAX);
    }
}
