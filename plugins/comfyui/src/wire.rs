//! ComfyUI's answers, as far as a monitor needs them.
//!
//! What must be there for an answer to be ComfyUI's at all is a plain field, so that a proxy's `{}` is an error and
//! not an empty queue; everything that a client can influence is lenient. `extra_data` may hold API keys and the whole
//! UI graph: only the two facts named here are ever read out of it.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};

use crate::graph::Node;
use crate::lenient::{Entries, Items, Lenient};

/// A longer id is no id: it could not be asked for.
const ID_MAX: usize = 512;

/// `GET /queue`.
#[derive(Debug, Deserialize)]
pub struct Queue {
    pub queue_running: Items<Prompt>,
    /// In heap order, not in the order of execution.
    pub queue_pending: Items<Prompt>,
}

/// `[number, prompt_id, prompt, extra_data, outputs_to_execute, ...]`.
#[derive(Debug, Clone)]
pub struct Prompt {
    pub id: String,
    pub number: Option<f64>,
    pub nodes: Vec<(String, Node)>,
    pub outputs: Vec<String>,
    pub create_time: Option<f64>,
    pub workflow: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct ExtraData {
    create_time: Lenient<f64>,
    extra_pnginfo: Lenient<PngInfo>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct PngInfo {
    workflow: Lenient<UiGraph>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct UiGraph {
    id: Lenient<String>,
}

impl<'de> Deserialize<'de> for Prompt {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Prompt, D::Error> {
        struct PromptVisitor;

        impl<'de> Visitor<'de> for PromptVisitor {
            type Value = Prompt;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[number, prompt_id, prompt, extra_data, outputs]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Prompt, A::Error> {
                let number: Lenient<f64> = seq.next_element()?.unwrap_or_default();
                let id: Lenient<String> = seq.next_element()?.unwrap_or_default();
                let nodes: Lenient<Entries<Node>> = seq.next_element()?.unwrap_or_default();
                let extra_data: Lenient<ExtraData> = seq.next_element()?.unwrap_or_default();
                let outputs: Lenient<Items<String>> = seq.next_element()?.unwrap_or_default();
                while seq.next_element::<IgnoredAny>()?.is_some() {}
                let id =
                    id.0.filter(|id| is_id(id))
                        .ok_or_else(|| serde::de::Error::custom("a prompt without an id"))?;
                let extra_data = extra_data.0.unwrap_or_default();
                Ok(Prompt {
                    id,
                    number: number.0,
                    nodes: nodes.0.unwrap_or_default().0,
                    outputs: outputs.0.unwrap_or_default().good,
                    create_time: extra_data.create_time.0,
                    workflow: extra_data
                        .extra_pnginfo
                        .0
                        .and_then(|info| info.workflow.0)
                        .and_then(|graph| graph.id.0),
                })
            }
        }

        deserializer.deserialize_seq(PromptVisitor)
    }
}

fn is_id(id: &str) -> bool {
    !id.is_empty() && id.len() <= ID_MAX
}

/// `GET /history...`: oldest first.
pub type History = Entries<Entry>;

/// One finished prompt.
#[derive(Debug, Deserialize)]
#[serde(try_from = "RawEntry")]
pub struct Entry {
    pub prompt: Prompt,
    pub status: Option<Status>,
    pub has_outputs: bool,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawEntry {
    prompt: Lenient<Prompt>,
    status: Lenient<Status>,
    outputs: Lenient<Entries<IgnoredAny>>,
}

impl TryFrom<RawEntry> for Entry {
    type Error = &'static str;

    fn try_from(raw: RawEntry) -> Result<Entry, &'static str> {
        Ok(Entry {
            prompt: raw.prompt.0.ok_or("no prompt")?,
            status: raw.status.0,
            has_outputs: raw.outputs.0.is_some_and(|outputs| !outputs.0.is_empty()),
        })
    }
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Status {
    pub status_str: Lenient<String>,
    pub messages: Lenient<Items<Message>>,
}

/// `[event, data]`.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Message(pub Lenient<String>, pub Lenient<Details>);

/// What the messages of an execution tell; tracebacks, inputs and outputs are left where they are.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Details {
    pub timestamp: Lenient<f64>,
    /// Of `execution_cached`.
    pub nodes: Lenient<Items<String>>,
    pub node_id: Lenient<String>,
    pub executed: Lenient<Items<String>>,
    pub exception_type: Lenient<String>,
    pub exception_message: Lenient<String>,
}

/// `GET /api/jobs`.
#[derive(Debug, Deserialize)]
pub struct Jobs {
    pub jobs: Items<Listed>,
    pub pagination: Pagination,
}

#[derive(Debug, Deserialize)]
pub struct Pagination {
    pub has_more: bool,
}

/// One prompt in the job list.
#[derive(Debug, Clone, Deserialize)]
#[serde(try_from = "RawListed")]
pub struct Listed {
    pub id: String,
    pub status: ListedStatus,
    pub number: Option<f64>,
    pub create_time: Option<f64>,
    pub started: Option<f64>,
    pub finished: Option<f64>,
    pub error: Option<Details>,
    pub workflow: Option<String>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct RawListed {
    id: Lenient<String>,
    status: Lenient<ListedStatus>,
    priority: Lenient<f64>,
    create_time: Lenient<f64>,
    execution_start_time: Lenient<f64>,
    execution_end_time: Lenient<f64>,
    execution_error: Lenient<Details>,
    workflow_id: Lenient<String>,
}

impl TryFrom<RawListed> for Listed {
    type Error = &'static str;

    fn try_from(raw: RawListed) -> Result<Listed, &'static str> {
        Ok(Listed {
            id: raw.id.0.filter(|id| is_id(id)).ok_or("no id")?,
            status: raw.status.0.ok_or("an unknown status")?,
            number: raw.priority.0,
            create_time: raw.create_time.0,
            started: raw.execution_start_time.0,
            finished: raw.execution_end_time.0,
            error: raw.execution_error.0,
            workflow: raw.workflow_id.0,
        })
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ListedStatus {
    Pending,
    InProgress,
    Completed,
    Failed,
    Cancelled,
}

impl ListedStatus {
    pub fn is_finished(self) -> bool {
        !matches!(self, ListedStatus::Pending | ListedStatus::InProgress)
    }
}

/// `GET /prompt`.
#[derive(Debug, Deserialize)]
pub struct Remaining {
    pub exec_info: ExecInfo,
}

#[derive(Debug, Deserialize)]
pub struct ExecInfo {
    pub queue_remaining: u64,
}

/// `GET /system_stats`.
#[derive(Debug, Deserialize)]
pub struct SystemStats {
    pub system: System,
    #[serde(default)]
    pub devices: Lenient<Items<Device>>,
}

/// What prompts are computed on. Sizes in bytes; without a GPU they are those of the host's memory.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Device {
    /// `cuda:0 NVIDIA GeForce RTX 4090 : cudaMallocAsync`, or just `cpu`.
    pub name: Lenient<String>,
    /// As torch calls it: `cuda`, `cpu`, `mps`, `xpu`.
    pub r#type: Lenient<String>,
    pub index: Lenient<u64>,
    pub vram_total: Lenient<f64>,
    pub vram_free: Lenient<f64>,
    /// What torch has reserved, and what of it nothing lies in.
    pub torch_vram_total: Lenient<f64>,
    pub torch_vram_free: Lenient<f64>,
}

#[derive(Debug, Deserialize)]
pub struct System {
    #[serde(default)]
    pub comfyui_version: Lenient<String>,
}

/// `GET /internal/logs/raw`.
#[derive(Debug, Deserialize)]
pub struct Terminal {
    pub entries: Items<Piece>,
}

/// `t`: the server's local time without a zone, so it is text to us.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct Piece {
    pub t: Lenient<String>,
    pub m: Lenient<String>,
}
