//! What one plugin entry may use, and the limiter that holds its memory to it.

use std::time::Duration;

use wasmtime::ResourceLimiter;

const MIB: u64 = 1024 * 1024;

/// Every limit of one entry. `Default` is what monitor.ron gets without a word.
#[derive(Clone, Debug, PartialEq)]
pub struct Limits {
    /// All linear memories of one instance together.
    pub memory_bytes: u64,
    pub table_elements: u64,
    /// `describe`, `open`.
    pub cpu_open: Duration,
    /// Every other call.
    pub cpu_call: Duration,
    pub wall_open: Duration,
    pub wall_check: Duration,
    /// `on-frames`: frames are pushed in while the far side goes on sending.
    pub wall_frames: Duration,
    /// Every other call.
    pub wall_call: Duration,
    pub http_connect: Duration,
    pub http_total: Duration,
    pub http_request_bytes: u64,
    /// Of a request made inside `submit` or `retry`: real graphs are megabytes.
    pub http_submit_bytes: u64,
    pub http_response_bytes: u64,
    pub http_requests_per_call: u32,
    pub http_requests_per_second: u32,
    /// Observations, or log lines, in one result.
    pub observations: usize,
    /// Any one string of a result that has no limit of its own.
    pub string_bytes: usize,
    pub detail_bytes: usize,
    pub cursor_bytes: usize,
    pub receipt_bytes: usize,
    pub log_lines_per_minute: u32,
    pub log_line_bytes: usize,
    pub file_bytes: u64,
    /// An instance retires after so many calls, so long a time, or at this share of its memory.
    pub instance_calls: u64,
    pub instance_age: Duration,
    pub instance_memory_percent: u8,
    /// The first wait after a crash; it doubles from there.
    pub backoff_base: Duration,
}

impl Default for Limits {
    fn default() -> Limits {
        Limits {
            memory_bytes: 64 * MIB,
            table_elements: 100_000,
            cpu_open: Duration::from_secs(2),
            cpu_call: Duration::from_millis(500),
            wall_open: Duration::from_secs(10),
            wall_check: Duration::from_secs(15),
            wall_frames: Duration::from_secs(2),
            wall_call: Duration::from_secs(30),
            http_connect: Duration::from_secs(5),
            http_total: Duration::from_secs(15),
            http_request_bytes: MIB,
            http_submit_bytes: 16 * MIB,
            http_response_bytes: 8 * MIB,
            http_requests_per_call: 32,
            http_requests_per_second: 20,
            observations: 5_000,
            string_bytes: 64 << 10,
            detail_bytes: 256 << 10,
            cursor_bytes: 64 << 10,
            receipt_bytes: 4 << 10,
            log_lines_per_minute: 200,
            log_line_bytes: 4 << 10,
            file_bytes: 64 * MIB,
            instance_calls: 10_000,
            instance_age: Duration::from_secs(24 * 60 * 60),
            instance_memory_percent: 75,
            backoff_base: Duration::from_secs(1),
        }
    }
}

/// Counts memory and tables of one Store. Growing past the limit is a trap, not a -1: the guest would only abort, without a cause.
#[derive(Debug)]
pub(super) struct StoreLimiter {
    memory_max: u64,
    table_max: u64,
    memory: u64,
    table: u64,
    tripped: bool,
}

impl StoreLimiter {
    pub(super) fn new(limits: &Limits) -> StoreLimiter {
        StoreLimiter {
            memory_max: limits.memory_bytes,
            table_max: limits.table_elements,
            memory: 0,
            table: 0,
            tripped: false,
        }
    }

    /// Linear memory never shrinks, so this is the high-water mark too.
    pub(super) fn memory(&self) -> u64 {
        self.memory
    }

    pub(super) fn table(&self) -> u64 {
        self.table
    }

    pub(super) fn tripped(&self) -> bool {
        self.tripped
    }
}

impl ResourceLimiter for StoreLimiter {
    fn memory_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grown = self
            .memory
            .saturating_add(desired.saturating_sub(current) as u64);
        if grown > self.memory_max {
            self.tripped = true;
            wasmtime::bail!(
                "wanted {} MiB of memory, {} MiB are allowed",
                grown.div_ceil(MIB),
                self.memory_max / MIB
            );
        }
        self.memory = grown;
        Ok(true)
    }

    fn table_growing(
        &mut self,
        current: usize,
        desired: usize,
        _maximum: Option<usize>,
    ) -> wasmtime::Result<bool> {
        let grown = self
            .table
            .saturating_add(desired.saturating_sub(current) as u64);
        if grown > self.table_max {
            self.tripped = true;
            wasmtime::bail!(
                "wanted {grown} table elements, {} are allowed",
                self.table_max
            );
        }
        self.table = grown;
        Ok(true)
    }

    fn instances(&self) -> usize {
        1_000
    }

    fn tables(&self) -> usize {
        1_000
    }

    fn memories(&self) -> usize {
        100
    }
}
