//! Google's answers, as far as a monitor needs them.
//!
//! Default values are left out of Google's JSON, 64-bit integers are strings, enums are names or (with
//! `enum-encoding=int`) numbers, and newer APIs add fields and names: so everything is lenient but the shape of an
//! answer itself. Arguments and environment of a container may hold secrets: there is no field for them here.

use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, Visitor};
use weir_sdk::lenient::{Entries, Items, Lenient};

use crate::kind::State;
use crate::time;

/// One page of a list, whatever its kind.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct List {
    #[serde(
        alias = "customJobs",
        alias = "pipelineJobs",
        alias = "batchPredictionJobs"
    )]
    pub jobs: Items<Resource>,
    pub next_page_token: String,
    /// An error under the status of a success is no list.
    pub error: Option<IgnoredAny>,
}

/// A job of any kind.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Resource {
    pub name: Lenient<String>,
    pub display_name: Lenient<String>,
    pub state: Lenient<StateField>,
    pub create_time: Lenient<Time>,
    pub start_time: Lenient<Time>,
    pub end_time: Lenient<Time>,
    pub update_time: Lenient<Time>,
    pub error: Lenient<RpcStatus>,
    pub labels: Lenient<Entries<String>>,
    pub web_access_uris: Lenient<Entries<String>>,
    pub job_spec: Lenient<JobSpec>,
    pub completion_stats: Lenient<CompletionStats>,
    pub job_detail: Lenient<JobDetail>,
    pub model: Lenient<String>,
    pub dedicated_resources: Lenient<DedicatedResources>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct RpcStatus {
    pub code: Lenient<Integer>,
    pub message: Lenient<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobSpec {
    pub worker_pool_specs: Lenient<Items<WorkerPool>>,
    pub scheduling: Lenient<Scheduling>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct WorkerPool {
    pub machine_spec: Lenient<MachineSpec>,
    pub replica_count: Lenient<Integer>,
    pub container_spec: Lenient<Image>,
    pub python_package_spec: Lenient<Image>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct MachineSpec {
    pub machine_type: Lenient<String>,
    pub accelerator_type: Lenient<Accelerator>,
    pub accelerator_count: Lenient<Integer>,
    pub tpu_topology: Lenient<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Image {
    #[serde(alias = "executorImageUri")]
    pub image_uri: Lenient<String>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default)]
pub struct Scheduling {
    pub timeout: Lenient<Duration>,
    pub strategy: Lenient<String>,
}

/// Machines of a batch prediction.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct DedicatedResources {
    pub machine_spec: Lenient<MachineSpec>,
    pub starting_replica_count: Lenient<Integer>,
}

/// A negative number stands for one that is not known.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct CompletionStats {
    pub successful_count: Lenient<Integer>,
    pub failed_count: Lenient<Integer>,
    pub incomplete_count: Lenient<Integer>,
}

#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct JobDetail {
    pub task_details: Lenient<Items<Task>>,
}

/// One task of a pipeline.
#[derive(Debug, Clone, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct Task {
    pub task_id: Lenient<Integer>,
    pub parent_task_id: Lenient<Integer>,
    pub task_name: Lenient<String>,
    pub state: Lenient<TaskState>,
    pub start_time: Lenient<Time>,
    pub end_time: Lenient<Time>,
    pub error: Lenient<RpcStatus>,
}

/// A string or an integer, as one field of an answer may be either.
struct Either<S, I>(S, I, &'static str);

impl<T, S: FnOnce(&str) -> Option<T>, I: FnOnce(i64) -> Option<T>> Visitor<'_> for Either<S, I> {
    type Value = T;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.2)
    }

    fn visit_str<E: serde::de::Error>(self, value: &str) -> Result<T, E> {
        (self.0)(value).ok_or_else(|| E::custom(self.2))
    }

    fn visit_i64<E: serde::de::Error>(self, value: i64) -> Result<T, E> {
        (self.1)(value).ok_or_else(|| E::custom(self.2))
    }

    fn visit_u64<E: serde::de::Error>(self, value: u64) -> Result<T, E> {
        self.visit_i64(i64::try_from(value).map_err(|_| E::custom("a smaller number"))?)
    }
}

macro_rules! either {
    ($type:ident, $what:literal, $text:expr, $number:expr) => {
        impl<'de> Deserialize<'de> for $type {
            fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<$type, D::Error> {
                deserializer.deserialize_any(Either($text, $number, $what))
            }
        }
    };
}

/// A 64-bit integer: a string in proto3's JSON.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Integer(pub i64);
either!(
    Integer,
    "an integer",
    |text: &str| text.trim().parse().ok().map(Integer),
    |number| Some(Integer(number))
);

/// Milliseconds since the epoch.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Time(pub u64);
either!(
    Time,
    "a time",
    |text: &str| time::parse(text).map(Time),
    |_| None
);

/// Milliseconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Duration(pub u64);
either!(
    Duration,
    "a duration",
    |text: &str| time::duration(text).map(Duration),
    |_| None
);

#[derive(Debug, Clone, PartialEq, Eq)]
pub struct StateField(pub State);
either!(
    StateField,
    "a state",
    |text: &str| Some(StateField(State::of_name(text))),
    |number| Some(StateField(State::of_number(number)))
);

/// The name of an accelerator.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Accelerator(pub String);
either!(
    Accelerator,
    "an accelerator",
    |text: &str| Some(Accelerator(weir_sdk::text::line(text, 64))),
    |number| Some(Accelerator(accelerator(number)))
);

/// The names by number, for answers with `enum-encoding=int`.
const ACCELERATORS: [&str; 19] = [
    "ACCELERATOR_TYPE_UNSPECIFIED",
    "NVIDIA_TESLA_K80",
    "NVIDIA_TESLA_P100",
    "NVIDIA_TESLA_V100",
    "NVIDIA_TESLA_P4",
    "NVIDIA_TESLA_T4",
    "TPU_V2",
    "TPU_V3",
    "NVIDIA_TESLA_A100",
    "NVIDIA_A100_80GB",
    "TPU_V4_POD",
    "NVIDIA_L4",
    "TPU_V5_LITEPOD",
    "NVIDIA_H100_80GB",
    "NVIDIA_H100_MEGA_80GB",
    "NVIDIA_H200_141GB",
    "NVIDIA_B200",
    "NVIDIA_GB200",
    "NVIDIA_RTX_PRO_6000",
];

fn accelerator(number: i64) -> String {
    usize::try_from(number)
        .ok()
        .and_then(|number| ACCELERATORS.get(number))
        .map_or_else(
            || format!("ACCELERATOR_{number}"),
            |name| (*name).to_owned(),
        )
}

/// Where a task of a pipeline is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum TaskState {
    Pending,
    Running,
    Succeeded,
    Cancelled,
    Failed,
    Skipped,
}
either!(TaskState, "a task's state", task_state, |number| {
    const BY_NUMBER: [&str; 10] = [
        "",
        "PENDING",
        "RUNNING",
        "SUCCEEDED",
        "CANCEL_PENDING",
        "CANCELLING",
        "CANCELLED",
        "FAILED",
        "SKIPPED",
        "NOT_TRIGGERED",
    ];
    task_state(BY_NUMBER.get(usize::try_from(number).ok()?)?)
});

fn task_state(name: &str) -> Option<TaskState> {
    Some(match name {
        "PENDING" => TaskState::Pending,
        "RUNNING" | "CANCEL_PENDING" | "CANCELLING" => TaskState::Running,
        "SUCCEEDED" => TaskState::Succeeded,
        "CANCELLED" => TaskState::Cancelled,
        "FAILED" => TaskState::Failed,
        "SKIPPED" | "NOT_TRIGGERED" => TaskState::Skipped,
        _ => return None,
    })
}

/// The body of a refusal.
#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorBody {
    pub error: Lenient<ErrorDetail>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorDetail {
    pub message: Lenient<String>,
    pub status: Lenient<String>,
    pub details: Lenient<Items<ErrorInfo>>,
}

/// The facts of `google.rpc.ErrorInfo` and `google.rpc.RetryInfo` that are acted upon.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct ErrorInfo {
    pub reason: Lenient<String>,
    pub retry_delay: Lenient<Duration>,
    pub metadata: Lenient<ErrorMetadata>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct ErrorMetadata {
    pub permission: Lenient<String>,
    pub quota_metric: Lenient<String>,
}

/// `entries:list` of Cloud Logging.
#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogEntries {
    pub entries: Items<LogEntry>,
    pub next_page_token: String,
    pub error: Option<IgnoredAny>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default, rename_all = "camelCase")]
pub struct LogEntry {
    pub insert_id: Lenient<String>,
    pub timestamp: Lenient<String>,
    pub text_payload: Lenient<String>,
    pub json_payload: Lenient<serde_json::Map<String, serde_json::Value>>,
    pub proto_payload: Lenient<serde_json::Map<String, serde_json::Value>>,
    pub resource: Lenient<LogResource>,
    pub labels: Lenient<Entries<String>>,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
pub struct LogResource {
    pub labels: Lenient<Entries<String>>,
}
