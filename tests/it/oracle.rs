//! What a recording says must be known at its end, read from the file without any of weir's own code.

use std::path::{Path, PathBuf};

use serde_json::Value;

/// How an execution stands at the end of a recording.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Ended {
    Completed,
    Failed,
    Cancelled,
    /// Deleted from the queue, or lost with the server that was killed.
    LostPending,
    LostRunning,
    StillPending,
    StillRunning,
}

/// One run of one prompt. A time is `None` where the recording does not know it.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Expected {
    pub(crate) external_id: String,
    /// ComfyUI's number of the prompt: with the id it tells runs of the same prompt id apart.
    pub(crate) number: f64,
    /// 1 for the first run of a prompt id, 2 for the second.
    pub(crate) run: u32,
    pub(crate) ended: Ended,
    pub(crate) created_ms: Option<i64>,
    pub(crate) started_ms: Option<i64>,
    pub(crate) completed_ms: Option<i64>,
    /// The node that raised, of a failed execution only.
    pub(crate) failed_node: Option<String>,
    /// The exception's message, verbatim.
    pub(crate) error_message: Option<String>,
    pub(crate) workflow_id: Option<String>,
    /// Ids of the prompt's nodes, sorted; empty where the recording cut the prompt.
    pub(crate) nodes: Vec<String>,
    /// Some poll shows it: otherwise nobody who polls can know of it.
    pub(crate) seen: bool,
}

pub(crate) fn recordings() -> Vec<PathBuf> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings");
    let mut files = Vec::new();
    for version in std::fs::read_dir(root).unwrap() {
        let version = version.unwrap().path();
        if version.is_dir() {
            files.extend(
                std::fs::read_dir(version)
                    .unwrap()
                    .map(|file| file.unwrap().path()),
            );
        }
    }
    files.retain(|file| {
        file.extension()
            .is_some_and(|extension| extension == "jsonl")
    });
    files.sort();
    files
}

/// The executions in the order in which they were posted.
pub(crate) fn expected(text: &str) -> Vec<Expected> {
    let lines: Vec<Value> = text
        .lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect();
    let mut executions: Vec<Expected> = Vec::new();
    for line in &lines {
        let posted = line["method"] == "POST" && line["status"] == 200;
        if posted && ["/prompt", "/api/prompt"].contains(&line["path"].as_str().unwrap_or_default())
        {
            submitted(line, &mut executions);
        }
    }
    let answered = |path: &'static str| {
        let poll = move |line: &&Value| {
            line["who"] == "poll" && line["path"] == path && line["status"] == 200
        };
        lines
            .iter()
            .filter(poll)
            .map(|line| body(line, &lines))
            .collect::<Vec<Value>>()
    };
    let (queues, histories) = (answered("/queue"), answered("/history"));
    for execution in &mut executions {
        for queue in &queues {
            in_queue(execution, queue);
        }
        for history in &histories {
            in_history(execution, &history[&execution.external_id]);
        }
        for job in answered("/api/jobs")
            .iter()
            .flat_map(|jobs| jobs["jobs"].as_array().unwrap())
        {
            in_jobs(execution, job);
        }
    }
    if histories.is_empty() {
        without_polls(&lines, &mut executions);
    }
    executions
}

fn body(line: &Value, lines: &[Value]) -> Value {
    let body = match line["same_as"].as_u64() {
        Some(seq) => &lines.iter().find(|line| line["seq"] == seq).unwrap()["body"],
        None => &line["body"],
    };
    serde_json::from_str(body.as_str().unwrap()).unwrap()
}

fn submitted(line: &Value, executions: &mut Vec<Expected>) {
    let answer: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
    let request: Value =
        serde_json::from_str(line["req_body"].as_str().unwrap()).unwrap_or(Value::Null);
    let external_id = answer["prompt_id"].as_str().unwrap().to_owned();
    let earlier = executions
        .iter()
        .filter(|execution| execution.external_id == external_id)
        .count();
    let nodes = request["prompt"]
        .as_object()
        .map(|prompt| prompt.keys().cloned().collect::<Vec<_>>());
    executions.push(Expected {
        external_id,
        number: answer["number"].as_f64().unwrap(),
        run: u32::try_from(earlier).unwrap() + 1,
        ended: Ended::LostPending,
        created_ms: None,
        started_ms: None,
        completed_ms: None,
        failed_node: None,
        error_message: None,
        workflow_id: text_of(&request["extra_data"]["extra_pnginfo"]["workflow"]["id"]),
        nodes: nodes.unwrap_or_default(),
        seen: false,
    });
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

/// Whether a queue item (also: the prompt of a history entry) is this run.
fn is_run(execution: &Expected, item: &Value) -> bool {
    item[1] == execution.external_id.as_str() && item[0].as_f64() == Some(execution.number)
}

/// Polls come in order, so what is set last is how it stood last.
fn in_queue(execution: &mut Expected, queue: &Value) {
    let find = |part: &str| {
        queue[part]
            .as_array()
            .unwrap()
            .iter()
            .find(|item| is_run(execution, item))
            .cloned()
    };
    let (item, ended) = match (find("queue_running"), find("queue_pending")) {
        (Some(item), _) => (item, Ended::StillRunning),
        (None, Some(item)) => (item, Ended::StillPending),
        (None, None) => {
            execution.ended = match execution.ended {
                Ended::StillRunning => Ended::LostRunning,
                Ended::StillPending => Ended::LostPending,
                ended => ended,
            };
            return;
        }
    };
    execution.seen = true;
    execution.ended = ended;
    execution.created_ms = item[3]["create_time"].as_i64();
}

fn in_history(execution: &mut Expected, entry: &Value) {
    if !is_run(execution, &entry["prompt"]) {
        return;
    }
    execution.seen = true;
    execution.created_ms = entry["prompt"][3]["create_time"].as_i64();
    for message in entry["status"]["messages"].as_array().unwrap() {
        message_says(execution, message[0].as_str().unwrap(), &message[1]);
    }
    assert!(
        execution.completed_ms.is_some(),
        "a history entry without an end: {entry}"
    );
}

fn message_says(execution: &mut Expected, kind: &str, data: &Value) {
    let ended = match kind {
        "execution_start" => {
            execution.started_ms = data["timestamp"].as_i64();
            return;
        }
        "execution_success" => Ended::Completed,
        "execution_interrupted" => Ended::Cancelled,
        // A node that blocks its successors says so with this frame, and the prompt goes on.
        "execution_error" if data["exception_type"] != "ExecutionBlocked" => Ended::Failed,
        _ => return,
    };
    execution.ended = ended;
    execution.completed_ms = data["timestamp"].as_i64();
    if ended == Ended::Failed {
        execution.failed_node = text_of(&data["node_id"]);
        execution.error_message = text_of(&data["exception_message"]);
    }
}

/// The list must say the same; it also knows times of jobs that were never in a queue poll.
fn in_jobs(execution: &mut Expected, job: &Value) {
    if job["id"] != execution.external_id.as_str()
        || job["priority"].as_f64() != Some(execution.number)
    {
        return;
    }
    execution.seen = true;
    let agree = |known: &mut Option<i64>, listed: &Value| {
        if let Some(ms) = listed.as_i64() {
            assert_eq!(*known.get_or_insert(ms), ms, "{job}");
        }
    };
    agree(&mut execution.created_ms, &job["create_time"]);
    agree(&mut execution.started_ms, &job["execution_start_time"]);
    agree(&mut execution.completed_ms, &job["execution_end_time"]);
}

/// Recordings without polls of `/history`: the frames say it, or else (a client without a socket) only that it is over.
fn without_polls(lines: &[Value], executions: &mut [Expected]) {
    for execution in executions {
        execution.seen = true;
        execution.ended = Ended::Completed;
        for frame in lines.iter().filter_map(|line| line["text"].as_str()) {
            let Ok(frame) = serde_json::from_str::<Value>(frame) else {
                continue;
            };
            if frame["data"]["prompt_id"] == execution.external_id.as_str() {
                message_says(execution, frame["type"].as_str().unwrap(), &frame["data"]);
            }
        }
        // The recorded clients were shown `/api/jobs` once.
        for line in lines
            .iter()
            .filter(|line| line["path"] == "/api/jobs" && line["status"] == 200)
        {
            let jobs: Value = serde_json::from_str(line["body"].as_str().unwrap()).unwrap();
            let job = jobs["jobs"]
                .as_array()
                .unwrap()
                .iter()
                .find(|job| job["id"] == execution.external_id.as_str());
            execution.created_ms = job.and_then(|job| job["create_time"].as_i64());
            execution.workflow_id = job.and_then(|job| text_of(&job["workflow_id"]));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;

    fn of(name: &str) -> Vec<Expected> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/recordings");
        expected(&std::fs::read_to_string(root.join(format!("{name}.jsonl"))).unwrap())
    }

    fn ends(executions: &[Expected]) -> Vec<Ended> {
        executions.iter().map(|execution| execution.ended).collect()
    }

    #[test]
    fn a_success_has_its_times_to_the_millisecond() {
        let executions = of("v0.33.0/simple_success");
        assert_eq!(ends(&executions), [Ended::Completed]);
        let execution = &executions[0];
        assert_eq!(
            execution.external_id,
            "9d5dae48-d2ec-4b1b-8394-eb34c6790f2c"
        );
        assert_eq!(execution.created_ms, Some(1_795_337_166_881));
        assert_eq!(execution.started_ms, Some(1_795_337_166_883));
        assert_eq!(execution.completed_ms, Some(1_795_337_167_119));
        assert_eq!(execution.nodes, ["1", "2", "3", "4", "5", "9"]);
        assert_eq!(
            of("v0.3.64/simple_success")[0].created_ms,
            None,
            "old servers do not say when"
        );
    }

    #[test]
    fn deleted_and_cleared_jobs_are_lost_while_pending() {
        let executions = of("v0.33.0/queue_several");
        let lost: Vec<&str> = executions
            .iter()
            .filter(|execution| execution.ended == Ended::LostPending)
            .map(|execution| &execution.external_id[..8])
            .collect();
        assert_eq!(lost, ["3403e13a", "382ebe33"]);
        assert_eq!(
            executions
                .iter()
                .filter(|execution| execution.ended == Ended::Completed)
                .count(),
            5
        );
        assert_eq!(
            executions
                .iter()
                .map(|execution| execution.number)
                .fold(0.0, f64::min),
            -1000.5
        );
    }

    #[test]
    fn a_killed_server_loses_running_and_pending_jobs() {
        for version in ["v0.33.0", "v0.3.64"] {
            let ended = ends(&of(&format!("{version}/restart_sigkill")));
            let lost = [Ended::LostRunning, Ended::LostPending, Ended::LostPending];
            assert!(
                ended.windows(3).any(|window| window == lost),
                "{version}: {ended:?}"
            );
            assert_eq!(ended.last(), Some(&Ended::Completed), "{version}");
        }
    }

    #[test]
    fn interruptions_are_cancelled_and_errors_name_node_and_message() {
        assert_eq!(
            ends(&of("v0.33.0/interrupt_running")),
            [Ended::Cancelled; 3]
        );
        let jobs = of("v0.33.0/jobs_api");
        assert_eq!(
            ends(&jobs),
            [
                Ended::Completed,
                Ended::Failed,
                Ended::Cancelled,
                Ended::LostPending,
                Ended::Cancelled,
                Ended::LostPending
            ]
        );
        assert_eq!(jobs[1].failed_node.as_deref(), Some("2"));
        assert_eq!(
            jobs[1].error_message.as_deref(),
            Some("deliberate failure at step 2/4\n")
        );
        assert_eq!(jobs[1].completed_ms, Some(1_795_337_302_483));
        assert_eq!(jobs[0].workflow_id.as_deref(), Some("wf-1"));
    }

    #[test]
    fn the_same_prompt_id_twice_is_two_runs() {
        let executions = of("v0.33.0/client_prompt_ids");
        let twice: Vec<&Expected> = executions
            .iter()
            .filter(|execution| execution.external_id.starts_with("c0024031"))
            .collect();
        assert_eq!(
            twice
                .iter()
                .map(|execution| execution.run)
                .collect::<Vec<_>>(),
            [1, 2]
        );
        assert!(
            twice
                .iter()
                .all(|execution| execution.ended == Ended::Completed && execution.seen)
        );
        assert!(twice[0].completed_ms < twice[1].completed_ms);
    }

    #[test]
    fn a_blocked_node_is_no_failure() {
        assert!(
            ends(&of("v0.33.0/execution_blocked"))
                .iter()
                .all(|ended| *ended == Ended::Completed)
        );
    }

    #[test]
    fn frames_say_what_was_not_polled() {
        let executions = of("v0.33.0/huge_workflows");
        assert_eq!(ends(&executions), [Ended::Completed; 9]);
        assert_eq!(executions[8].started_ms, Some(1_795_337_313_103));
        assert_eq!(executions[8].created_ms, Some(1_795_337_310_008));
        let stalled = of("v0.33.0/stalled_reader");
        assert_eq!(
            (stalled[0].ended, stalled[0].completed_ms),
            (Ended::Completed, None)
        );
    }

    #[test]
    fn every_recording_has_the_ends_it_was_made_for() {
        let mut counts: BTreeMap<Ended, usize> = BTreeMap::new();
        for file in recordings() {
            let executions = expected(&std::fs::read_to_string(&file).unwrap());
            for execution in &executions {
                *counts.entry(execution.ended).or_default() += 1;
                assert!(execution.seen, "{file:?}: {execution:?}");
                assert_eq!(
                    execution.error_message.is_some(),
                    execution.ended == Ended::Failed,
                    "{file:?}: {execution:?}"
                );
                assert!(
                    execution.created_ms <= execution.started_ms || execution.started_ms.is_none()
                );
                assert!(execution.started_ms <= execution.completed_ms);
            }
        }
        let counts: Vec<(Ended, usize)> = counts.into_iter().collect();
        assert_eq!(
            counts,
            [
                (Ended::Completed, 96),
                (Ended::Failed, 19),
                (Ended::Cancelled, 14),
                (Ended::LostPending, 11),
                (Ended::LostRunning, 3),
                (Ended::StillPending, 1),
                (Ended::StillRunning, 1),
            ]
        );
    }
}
