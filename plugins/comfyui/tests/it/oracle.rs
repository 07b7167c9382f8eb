//! What a recording says became of each run, read from its raw JSON and by none of the code under test.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;

use crate::player::Player;

/// (prompt id, number, creation time).
pub(crate) type Run = (String, String, Option<u64>);

#[derive(Debug, PartialEq)]
pub(crate) struct Truth {
    pub(crate) state: &'static str,
    pub(crate) created: Option<u64>,
    pub(crate) started: Option<u64>,
    pub(crate) finished: Option<u64>,
    pub(crate) workflow: Option<String>,
    pub(crate) error: Option<String>,
    /// (id, name, state); none where the recording left the history out.
    pub(crate) steps: Option<Vec<(String, String, &'static str)>>,
}

/// Every run that any recorded answer showed, with its end or none.
pub(crate) fn truths(player: &Player) -> BTreeMap<Run, Option<Truth>> {
    let mut truths = BTreeMap::new();
    for queue in player.bodies("/queue") {
        for item in ["queue_running", "queue_pending"]
            .iter()
            .flat_map(|list| queue[*list].as_array().unwrap())
        {
            truths.entry(run_of(item)).or_insert(None);
        }
    }
    for jobs in player.bodies("/api/jobs") {
        for job in jobs["jobs"].as_array().unwrap() {
            let run = (
                text(&job["id"]).unwrap(),
                number(&job["priority"]),
                job["create_time"].as_u64(),
            );
            let state = match job["status"].as_str().unwrap() {
                "completed" => "completed",
                "failed" => "failed",
                "cancelled" => "cancelled",
                _ => {
                    truths.entry(run).or_insert(None);
                    continue;
                }
            };
            let truth = Truth {
                state,
                created: job["create_time"].as_u64(),
                started: job["execution_start_time"].as_u64(),
                finished: job["execution_end_time"].as_u64(),
                workflow: text(&job["workflow_id"]),
                error: (state == "failed").then(|| error_of(&job["execution_error"])),
                steps: None,
            };
            truths.insert(run, Some(truth));
        }
    }
    for history in player.bodies("/history") {
        for entry in history.as_object().unwrap().values() {
            let truth = truth(entry);
            if let Some(Some(listed)) = truths.insert(run_of(&entry["prompt"]), Some(truth)) {
                let Some(Some(truth)) = truths.get(&run_of(&entry["prompt"])) else {
                    unreachable!()
                };
                let same = Truth {
                    steps: None,
                    ..listed
                };
                assert_eq!(
                    (same.state, same.started, same.finished, same.created),
                    (truth.state, truth.started, truth.finished, truth.created),
                    "{}",
                    player.name
                );
            }
        }
    }
    truths
}

fn run_of(item: &Value) -> Run {
    (
        text(&item[1]).unwrap(),
        number(&item[0]),
        item[3]["create_time"].as_u64(),
    )
}

/// A client that chose it made it a float: 3.0 is 3.
fn number(value: &Value) -> String {
    value.as_f64().unwrap().to_string()
}

fn text(value: &Value) -> Option<String> {
    value.as_str().map(str::to_owned)
}

fn truth(entry: &Value) -> Truth {
    let messages = entry["status"]["messages"].as_array().unwrap();
    let message = |name: &str| {
        messages
            .iter()
            .find(|message| message[0] == name)
            .map(|message| &message[1])
    };
    let at = |name: &str| message(name).and_then(|data| data["timestamp"].as_u64());
    let (state, end) = if let Some(end) = message("execution_error") {
        ("failed", end)
    } else if let Some(end) = message("execution_interrupted") {
        ("cancelled", end)
    } else {
        ("completed", message("execution_success").unwrap())
    };
    let prompt = &entry["prompt"];
    Truth {
        state,
        created: prompt[3]["create_time"].as_u64(),
        started: at("execution_start"),
        finished: end["timestamp"].as_u64(),
        workflow: text(&prompt[3]["extra_pnginfo"]["workflow"]["id"]),
        error: (state == "failed").then(|| error_of(end)),
        steps: Some(steps(prompt, state, end, message("execution_cached"))),
    }
}

/// Type and message on one line, without what a terminal would act upon.
fn error_of(end: &Value) -> String {
    let both = format!(
        "{}: {}",
        end["exception_type"].as_str().unwrap(),
        end["exception_message"].as_str().unwrap()
    );
    let shown: String = both
        .chars()
        .filter(|c| !c.is_control() || c.is_whitespace())
        .filter(|c| !('\u{202a}'..='\u{202e}').contains(c))
        .collect();
    shown.split_whitespace().collect::<Vec<_>>().join(" ")
}

fn steps(
    prompt: &Value,
    state: &str,
    end: &Value,
    cached: Option<&Value>,
) -> Vec<(String, String, &'static str)> {
    let set = |list: &Value| -> BTreeSet<String> {
        list.as_array()
            .into_iter()
            .flatten()
            .filter_map(text)
            .collect()
    };
    let nodes = prompt[2].as_object().unwrap();
    let cached = cached
        .map(|cached| set(&cached["nodes"]))
        .unwrap_or_default();
    let executed = set(&end["executed"]);
    let mut shown = set(&prompt[4]);
    loop {
        let before = shown.len();
        let links: Vec<String> = shown
            .iter()
            .filter_map(|id| nodes.get(id))
            .flat_map(|node| node["inputs"].as_object().unwrap().values())
            .filter(|input| {
                input.as_array().is_some_and(|link| {
                    link.len() == 2 && link[0].is_string() && link[1].is_number()
                })
            })
            .filter_map(|link| text(&link[0]))
            .collect();
        shown.extend(links);
        if shown.len() == before {
            break;
        }
    }
    nodes
        .iter()
        .filter(|(id, _)| shown.contains(*id))
        .map(|(id, node)| {
            let name = text(&node["_meta"]["title"])
                .or_else(|| text(&node["class_type"]))
                .unwrap();
            let step = match state {
                "failed" if end["node_id"] == id.as_str() => "failed",
                "cancelled" if end["node_id"] == id.as_str() => "cancelled",
                _ if cached.contains(id) => "skipped",
                "completed" => "completed",
                _ if executed.contains(id) => "completed",
                _ => "skipped",
            };
            (id.clone(), name, step)
        })
        .collect()
}
