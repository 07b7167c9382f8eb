//! The tables of the store, version by version. A version that was released is never edited.

/// "weir" in ASCII: tells our files from other SQLite files.
pub(super) const APPLICATION_ID: i64 = 0x7765_6972;

/// One entry per version, from 1.
pub(super) const MIGRATIONS: &[&str] = &[V1, V2, V3];

/// The file's name inside the data directory.
pub(super) const FILE_NAME: &str = "weir.db";

/// Times are microseconds since 1970 UTC. Statuses and kinds are frozen codes.
///
/// Numbers up to 6 are the open statuses, 7 is `completed`: partial indexes leave out what needs none.
const V1: &str = "
CREATE TABLE meta (key TEXT PRIMARY KEY, value) WITHOUT ROWID;

CREATE TABLE workflows (
    id INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    key TEXT NOT NULL,
    name TEXT NOT NULL,
    version INTEGER NOT NULL,
    last_number INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    UNIQUE (workspace_id, key)
);

CREATE TABLE sources (
    id INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    plugin TEXT NOT NULL,
    generation INTEGER NOT NULL,
    config_hash TEXT,
    created_at INTEGER NOT NULL,
    first_contact_at INTEGER,
    contact_at INTEGER,
    stale_since INTEGER,
    stale_error TEXT,
    suspect INTEGER NOT NULL,
    configured INTEGER NOT NULL,
    forgotten_before INTEGER,
    UNIQUE (workspace_id, name)
);

-- Apart from the row: a cursor may be large.
CREATE TABLE source_cursors (source_id INTEGER PRIMARY KEY, cursor TEXT);

CREATE TABLE executions (
    seq INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    workflow INTEGER NOT NULL,
    source INTEGER NOT NULL,
    uuid BLOB NOT NULL,
    external_id TEXT NOT NULL,
    run TEXT NOT NULL,
    number INTEGER NOT NULL,
    name TEXT,
    status INTEGER NOT NULL,
    imported INTEGER NOT NULL,
    attempt INTEGER NOT NULL,
    corrected INTEGER NOT NULL,
    watched INTEGER NOT NULL,
    started_estimated INTEGER NOT NULL,
    first_seen_at INTEGER NOT NULL,
    created_at INTEGER,
    started_at INTEGER,
    completed_at INTEGER,
    progress REAL,
    note TEXT,
    position INTEGER,
    next_deadline INTEGER,
    error TEXT,
    labels TEXT,
    detail TEXT
);
CREATE UNIQUE INDEX executions_run ON executions (source, external_id, run);
CREATE INDEX executions_uuid ON executions (uuid);
CREATE INDEX executions_workflow ON executions (workflow);
CREATE INDEX executions_source ON executions (source);
CREATE INDEX executions_status ON executions (status) WHERE status <> 7;
CREATE INDEX executions_open_workflow ON executions (workflow) WHERE status <= 6;
CREATE INDEX executions_open_source ON executions (source) WHERE status <= 6;
CREATE INDEX executions_deadline ON executions (next_deadline) WHERE next_deadline IS NOT NULL;

CREATE TABLE steps (
    execution INTEGER NOT NULL,
    idx INTEGER NOT NULL,
    external_id TEXT NOT NULL,
    name TEXT NOT NULL,
    status INTEGER NOT NULL,
    started_at INTEGER,
    completed_at INTEGER,
    error TEXT,
    PRIMARY KEY (execution, idx)
) WITHOUT ROWID;

CREATE TABLE events (
    seq INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    at INTEGER NOT NULL,
    kind INTEGER NOT NULL,
    v INTEGER NOT NULL,
    workflow INTEGER,
    execution INTEGER,
    step INTEGER,
    payload TEXT
);
-- Holds the events of no execution too: retention finds them by it.
CREATE INDEX events_execution ON events (execution);

CREATE TABLE alerts (
    id INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    uuid BLOB NOT NULL,
    fingerprint TEXT NOT NULL,
    rule TEXT NOT NULL,
    severity INTEGER NOT NULL,
    status INTEGER NOT NULL,
    title TEXT NOT NULL,
    body TEXT NOT NULL,
    labels TEXT NOT NULL,
    annotations TEXT NOT NULL,
    since INTEGER NOT NULL,
    ends INTEGER,
    updated_at INTEGER NOT NULL,
    count INTEGER NOT NULL,
    executions TEXT NOT NULL,
    acknowledged_by TEXT,
    acknowledged_at INTEGER,
    state TEXT
);
CREATE INDEX alerts_uuid ON alerts (uuid);
CREATE INDEX alerts_fingerprint ON alerts (fingerprint);
CREATE INDEX alerts_firing ON alerts (status) WHERE status = 0;

CREATE TABLE outbox (
    id INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    alert INTEGER,
    key TEXT NOT NULL,
    receiver TEXT NOT NULL,
    payload TEXT NOT NULL,
    state INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    next_attempt_at INTEGER,
    updated_at INTEGER NOT NULL,
    answer TEXT,
    receipt TEXT
);
-- 0 is queued, 2 is failed and to be tried again.
CREATE INDEX outbox_due ON outbox (next_attempt_at) WHERE state IN (0, 2);
CREATE INDEX outbox_key ON outbox (key);
CREATE INDEX outbox_alert ON outbox (alert);

CREATE TABLE checkpoints (
    name TEXT PRIMARY KEY,
    cursor INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    blob BLOB
) WITHOUT ROWID;

CREATE TABLE series (
    id INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    name TEXT NOT NULL,
    UNIQUE (workspace_id, name)
);
CREATE TABLE samples (
    series INTEGER NOT NULL,
    width INTEGER NOT NULL,
    at INTEGER NOT NULL,
    min REAL NOT NULL,
    max REAL NOT NULL,
    mean REAL NOT NULL,
    count INTEGER NOT NULL,
    PRIMARY KEY (series, width, at)
) WITHOUT ROWID;
";

/// Control requests: what weir was asked to do at a provider. States from 2 on are settled.
const V2: &str = "
CREATE TABLE control_requests (
    id INTEGER PRIMARY KEY,
    workspace_id INTEGER NOT NULL,
    uuid BLOB NOT NULL,
    action INTEGER NOT NULL,
    state INTEGER NOT NULL,
    source INTEGER NOT NULL,
    workflow INTEGER,
    -- What is cancelled or retried; with its uuid, which outlives its row.
    execution INTEGER,
    execution_uuid BLOB,
    job_id TEXT,
    job_run TEXT,
    -- Idempotency: what the client calls it, and what makes two requests the same one.
    key TEXT,
    digest BLOB,
    -- Executions up to this one were there before it.
    after_execution INTEGER NOT NULL,
    created_at INTEGER NOT NULL,
    updated_at INTEGER NOT NULL,
    attempts INTEGER NOT NULL,
    asked INTEGER NOT NULL,
    asked_at INTEGER,
    not_before INTEGER,
    reason TEXT,
    -- The new job of a retry or submission, and its execution once it is known.
    new_job_id TEXT,
    new_job_run TEXT,
    new_execution INTEGER,
    new_uuid BLOB,
    answer_status INTEGER,
    answer_type TEXT,
    answer BLOB
);
CREATE INDEX control_requests_uuid ON control_requests (uuid);
CREATE INDEX control_requests_open ON control_requests (id) WHERE state < 2;
CREATE INDEX control_requests_settled ON control_requests (updated_at) WHERE state >= 2;
CREATE INDEX control_requests_key ON control_requests (source, key) WHERE key IS NOT NULL;
CREATE INDEX control_requests_execution ON control_requests (execution) WHERE execution IS NOT NULL;
CREATE INDEX control_requests_new ON control_requests (new_execution) WHERE new_execution IS NOT NULL;
CREATE INDEX control_requests_answer ON control_requests (id) WHERE answer IS NOT NULL;
";

/// The newest round in which a source's configuration saw everything: both or none.
const V3: &str = "
ALTER TABLE sources ADD COLUMN complete_generation INTEGER;
ALTER TABLE sources ADD COLUMN complete_at INTEGER;
";
