//! Frames of every recording, as each of its connections got them: what they say about progress, and what they must not.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use comfyui::bindings::exports::weir::plugin::streams::{Frame, Message, Protocol};
use serde_json::{Value, json};
use weir_sdk::bindings::weir::plugin::types::{JobState, Observation, StepState};

use crate::fake::{Fake, item};
use crate::oracle::truths;
use crate::player::{Player, recordings};
use crate::recordings::source;

const CONFIG: &str = r#"{"url": "http://comfy:8188"}"#;

fn text(text: &str) -> Frame {
    Frame::Message(Message::Text(text.to_owned()))
}

fn frame(kind: &str, data: Value) -> Frame {
    text(&json!({"type": kind, "data": data}).to_string())
}

/// What the host makes of observations: steps that never go back, and a percentage that only rises.
#[derive(Default)]
struct Bar {
    steps: Vec<(String, StepState)>,
    fractions: HashMap<String, f64>,
    percent: f64,
    note: Option<String>,
}

fn is_over(state: StepState) -> bool {
    !matches!(state, StepState::Pending | StepState::Running)
}

impl Bar {
    fn take(&mut self, observation: &Observation) {
        let mut raise = |id: &str, done: f64, total: f64| {
            assert!(total > 0.0 && done.is_finite());
            let known = self.fractions.entry(id.to_owned()).or_default();
            *known = known.max((done / total).clamp(0.0, 1.0));
        };
        match observation {
            Observation::Job(job) => {
                assert_eq!(
                    job.state,
                    JobState::Running,
                    "a verdict comes from the history"
                );
                assert_eq!((job.finished, job.error.as_ref()), (None, None));
                for step in &job.steps {
                    if let (Some(done), Some(total)) = (step.done, step.total) {
                        raise(&step.id, done, total);
                    }
                    match self.steps.iter_mut().find(|(id, _)| *id == step.id) {
                        Some((_, state)) if is_over(*state) => {}
                        Some((_, state)) => *state = step.state,
                        None => self.steps.push((step.id.clone(), step.state)),
                    }
                }
            }
            Observation::Progress(progress) => {
                raise(
                    progress.step.as_deref().unwrap(),
                    progress.done,
                    progress.total.unwrap(),
                );
                self.note.clone_from(&progress.note);
            }
            Observation::Gone(_) | Observation::Gauge(_) => panic!("frames never say that"),
        }
        let weighing = self
            .steps
            .iter()
            .filter(|(_, state)| *state != StepState::Skipped);
        let fraction = |(id, state): &(String, StepState)| match state {
            StepState::Completed => 1.0,
            _ => self.fractions.get(id).copied().unwrap_or_default(),
        };
        let count = weighing.clone().count();
        if count > 0 {
            let percent = 100.0 * weighing.map(fraction).sum::<f64>() / count as f64;
            self.percent = self.percent.max(percent);
        }
    }
}

fn id_of(observation: &Observation) -> (&str, Option<&str>) {
    match observation {
        Observation::Job(job) => (&job.id, job.run.as_deref()),
        Observation::Progress(progress) => (&progress.id, progress.run.as_deref()),
        Observation::Gone(gone) => (&gone.id, gone.run.as_deref()),
        Observation::Gauge(gauge) => panic!("frames never say {}", gauge.name),
    }
}

type Bars = BTreeMap<(String, Option<String>), Bar>;

/// Feeds frames in calls of `size`; `fresh`: each call in a new instance.
fn feed(player: &Player, connection: &str, size: usize, fresh: bool) -> Bars {
    let mut bars = Bars::new();
    let mut instance = source(CONFIG);
    let frames: Vec<_> = player
        .wire
        .iter()
        .filter(|frame| frame.1 == connection)
        .collect();
    player.ahead.set(true);
    for call in frames.chunks(size) {
        player.t.set(call[0].0);
        if fresh {
            instance = source(CONFIG);
        }
        let frames = call.iter().map(|(_, _, frame)| text(frame)).collect();
        let reaction = instance.on_frames(player, frames).unwrap();
        assert!(reaction.send.is_empty(), "a monitor says nothing");
        let has_status = call
            .iter()
            .any(|(_, _, frame)| frame.contains("\"status\""));
        assert!(
            reaction.refresh || !has_status,
            "{}: a wake-up",
            player.name
        );
        for observation in &reaction.observations {
            let (id, run) = id_of(observation);
            let bar = bars
                .entry((id.to_owned(), run.map(str::to_owned)))
                .or_default();
            bar.take(observation);
        }
    }
    player.ahead.set(false);
    bars
}

/// Percent of a prompt by FACTS: needed nodes behind which nothing is cached, fraction of each, and the highest so far.
/// Read from the raw frames, by none of the code under test.
fn percents(player: &Player, connection: &str) -> BTreeMap<String, f64> {
    let mut graphs: BTreeMap<String, (Value, Value)> = BTreeMap::new();
    let queues = player.bodies("/queue");
    let histories = player.bodies("/history");
    let queued = queues.iter().flat_map(|queue| {
        let lists = ["queue_running", "queue_pending"].map(|list| queue[list].as_array().unwrap());
        lists.into_iter().flatten()
    });
    let finished = histories
        .iter()
        .flat_map(|history| history.as_object().unwrap().values())
        .map(|entry| &entry["prompt"]);
    for item in queued.chain(finished) {
        graphs.insert(
            item[1].as_str().unwrap().to_owned(),
            (item[2].clone(), item[4].clone()),
        );
    }
    let mut cached: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    let mut percents: BTreeMap<String, f64> = BTreeMap::new();
    for (_, _, frame) in player.wire.iter().filter(|frame| frame.1 == connection) {
        let frame: Value = serde_json::from_str(frame).unwrap();
        let data = &frame["data"];
        let Some(id) = data["prompt_id"].as_str() else {
            continue;
        };
        let Some((graph, outputs)) = graphs.get(id) else {
            continue;
        };
        if frame["type"] == "execution_cached" {
            let nodes = data["nodes"].as_array().unwrap().iter();
            let nodes = nodes
                .map(|node| node.as_str().unwrap().to_owned())
                .collect();
            cached.insert(id.to_owned(), nodes);
        }
        if frame["type"] != "progress_state" {
            continue;
        }
        let none = BTreeSet::new();
        let cached = cached.get(id).unwrap_or(&none);
        // A lazy input that nobody asked for is behind what is finished, and weighs nothing.
        let over = data["nodes"].as_object().unwrap().iter();
        let over = over.filter(|(_, node)| node["state"] == "finished");
        let over: BTreeSet<String> = over.map(|(id, _)| id.clone()).collect();
        let open = needed(graph, outputs, &(&over | cached));
        let mut needed = needed(graph, outputs, cached);
        needed.retain(|id| open.contains(id) || !data["nodes"][id].is_null());
        let mut done = 0.0;
        for node in &needed {
            done += fraction(&data["nodes"], node);
        }
        if !needed.is_empty() {
            let percent = 100.0 * done / needed.len() as f64;
            let highest = percents.entry(id.to_owned()).or_default();
            *highest = highest.max(percent);
        }
    }
    percents
}

fn needed(graph: &Value, outputs: &Value, cached: &BTreeSet<String>) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    let mut todo: Vec<String> = outputs
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_str().unwrap().to_owned())
        .collect();
    while let Some(id) = todo.pop() {
        if cached.contains(&id) || !found.insert(id.clone()) {
            continue;
        }
        for input in graph[&id]["inputs"].as_object().unwrap().values() {
            if let Some([Value::String(from), Value::Number(_)]) =
                input.as_array().map(Vec::as_slice)
            {
                todo.push(from.clone());
            }
        }
    }
    found
}

fn fraction(nodes: &Value, id: &str) -> f64 {
    let one = |node: &Value| {
        if node["state"] == "finished" {
            return 1.0;
        }
        let max = node["max"].as_f64().unwrap();
        if max > 0.0 {
            (node["value"].as_f64().unwrap() / max).min(1.0)
        } else {
            0.0
        }
    };
    let children: Vec<&Value> = nodes
        .as_object()
        .unwrap()
        .iter()
        .filter(|(child, node)| *child != id && node["real_node_id"] == id)
        .map(|(_, node)| node)
        .collect();
    match nodes.get(id) {
        Some(node) if node["state"] == "finished" => 1.0,
        _ if !children.is_empty() => {
            children.iter().map(|node| one(node)).sum::<f64>() / (children.len() as f64 + 1.0)
        }
        Some(node) => one(node),
        None => 0.0,
    }
}

fn connections(player: &Player) -> BTreeSet<String> {
    player.wire.iter().map(|frame| frame.1.clone()).collect()
}

#[test]
fn the_percentage_is_that_of_the_whole_prompt_in_every_recording() {
    let (mut compared, mut whole) = (0, 0);
    for file in recordings() {
        let player = Player::load(&file);
        let runs = truths(&player);
        for connection in connections(&player) {
            let expected = percents(&player, &connection);
            for (size, fresh) in [(1, false), (16, false), (1, true)] {
                let bars = feed(&player, &connection, size, fresh);
                let name = format!("{} {connection} {size} {fresh}", player.name);
                for ((id, run), bar) in &bars {
                    let is_known = runs.keys().any(|(known, number, created)| {
                        let known_run = match created {
                            Some(created) => format!("{number}:{created}"),
                            None => number.clone(),
                        };
                        known == id && Some(known_run) == *run
                    });
                    assert!(is_known, "{name}: {id} {run:?} is invented");
                    let Some(expected) = expected.get(id) else {
                        continue;
                    };
                    let is_twice = bars.keys().filter(|(other, _)| other == id).count() > 1;
                    // Where cached nodes are told, the figure is exact; else it may only know more.
                    let told = player.wire.iter().any(|(_, to, frame)| {
                        *to == connection
                            && frame.contains("execution_cached")
                            && frame.contains(id.as_str())
                    });
                    if told && size == 1 && !fresh && !is_twice {
                        assert!(
                            (bar.percent - expected).abs() < 1e-6,
                            "{name}: {id} {} {expected}",
                            bar.percent
                        );
                        compared += 1;
                    } else if !is_twice {
                        assert!(
                            bar.percent + 1e-6 >= *expected || fresh || size > 1,
                            "{name}: {id} {} {expected}",
                            bar.percent
                        );
                    }
                    whole += usize::from(bar.percent > 99.999);
                }
            }
        }
    }
    println!("{compared} {whole}");
    assert!(compared > 60 && whole > 60, "{compared} {whole}");
}

fn first(file: &str, connection: &str) -> Bar {
    let file = recordings()
        .into_iter()
        .find(|path| path.ends_with(file))
        .unwrap();
    let bars = feed(&Player::load(&file), connection, 1, false);
    bars.into_values().next().unwrap()
}

#[test]
fn before_progress_state_a_node_is_done_when_the_next_one_comes() {
    for recording in ["v0.3.40/progress_own.jsonl", "v0.3.40/simple_success.jsonl"] {
        let bar = first(recording, "submitter");
        assert!(bar.percent > 99.999, "{recording}: {}", bar.percent);
        assert!(
            bar.steps
                .iter()
                .all(|(_, state)| *state == StepState::Completed)
        );
    }
}

#[test]
fn a_client_that_comes_back_is_told_a_node_without_a_prompt_and_it_is_the_one_that_runs() {
    let bar = first("v0.33.0/reconnect_mid_job.jsonl", "submitter2");
    assert!(bar.percent > 99.999);
    let fake = Fake::new(true);
    fake.running.borrow_mut().push(item(7, json!({})));
    let mut instance = source(CONFIG);
    for (node, expected) in [("nowhere", 0), ("1", 1)] {
        let frames = vec![Frame::Connected, frame("executing", json!({"node": node}))];
        let reaction = instance.on_frames(&fake, frames).unwrap();
        let running = reaction
            .observations
            .iter()
            .filter_map(|observation| match observation {
                Observation::Job(job) => Some(
                    job.steps
                        .iter()
                        .filter(|step| step.state == StepState::Running)
                        .count(),
                ),
                _ => None,
            });
        assert_eq!(running.sum::<usize>(), expected, "{node}");
        fake.later(10_000);
    }
}

#[test]
fn cached_nodes_are_skipped_steps() {
    let file = recordings()
        .into_iter()
        .find(|path| path.ends_with("v0.33.0/cached_rerun.jsonl"))
        .unwrap();
    let player = Player::load(&file);
    let bars = feed(&player, "submitter", 1, false);
    let skipped: Vec<usize> = bars
        .values()
        .map(|bar| {
            bar.steps
                .iter()
                .filter(|(_, state)| *state == StepState::Skipped)
                .count()
        })
        .collect();
    assert!(skipped.contains(&0) && skipped.contains(&5), "{skipped:?}");
}

#[test]
fn what_ran_without_telling_is_behind_what_is_finished() {
    // Broadcast prompts have no `execution_cached`.
    let fake = Fake::new(true);
    fake.running.borrow_mut().push(item(7, json!({})));
    let mut instance = source(CONFIG);
    let mut bar = Bar::default();
    for (state, percent, first) in [
        ("running", 0.0, StepState::Pending),
        ("finished", 100.0, StepState::Skipped),
    ] {
        let nodes = json!({"2": {"value": 0.0, "max": 1.0, "state": state, "real_node_id": "2"}});
        let frames = vec![frame(
            "progress_state",
            json!({"prompt_id": "id-7", "nodes": nodes}),
        )];
        let reaction = instance.on_frames(&fake, frames).unwrap();
        reaction
            .observations
            .iter()
            .for_each(|observation| bar.take(observation));
        assert_eq!((bar.percent, bar.steps[0].1), (percent, first), "{state}");
    }
}

#[test]
fn an_end_is_a_reason_to_look_and_no_verdict() {
    for (kind, extra, refresh) in [
        ("execution_success", json!({}), true),
        (
            "execution_error",
            json!({"exception_type": "ValueError"}),
            true,
        ),
        ("execution_interrupted", json!({}), true),
        (
            "execution_error",
            json!({"exception_type": "ExecutionBlocked"}),
            false,
        ),
        ("executing", json!({"node": null}), true),
        ("status", json!({"status": {}}), true),
        ("crystools.monitor", json!({}), false),
        ("progress_state", json!({"nodes": {}}), false),
    ] {
        let fake = Fake::new(true);
        fake.running.borrow_mut().push(item(7, json!({})));
        let mut instance = source(CONFIG);
        let begin = vec![frame(
            "execution_start",
            json!({"prompt_id": "id-7", "timestamp": 5}),
        )];
        let begun = instance.on_frames(&fake, begin).unwrap();
        let Observation::Job(job) = &begun.observations[0] else {
            panic!()
        };
        assert_eq!((job.started, job.run.as_deref()), (Some(5), Some("7:7")));
        let mut data = extra.clone();
        data["prompt_id"] = json!("id-7");
        let reaction = instance.on_frames(&fake, vec![frame(kind, data)]).unwrap();
        assert_eq!(reaction.refresh, refresh, "{kind} {extra}");
        for observation in &reaction.observations {
            let Observation::Job(job) = observation else {
                continue;
            };
            assert_eq!(job.state, JobState::Running);
        }
    }
}

#[test]
fn an_id_that_is_posted_again_is_another_run() {
    let fake = Fake::new(true);
    let mut instance = source(CONFIG);
    let nodes =
        |state: &str| json!({"2": {"value": 1.0, "max": 1.0, "state": state, "real_node_id": "2"}});
    let mut runs = Vec::new();
    for number in [7, 8] {
        let mut posted = item(number, json!({}));
        posted[1] = json!("same");
        *fake.running.borrow_mut() = vec![posted];
        fake.later(1000);
        for state in ["running", "finished"] {
            let frames = vec![frame(
                "progress_state",
                json!({"prompt_id": "same", "nodes": nodes(state)}),
            )];
            let reaction = instance.on_frames(&fake, frames).unwrap();
            runs.extend(
                reaction
                    .observations
                    .iter()
                    .map(|observation| id_of(observation).1.unwrap().to_owned()),
            );
        }
    }
    runs.dedup();
    assert_eq!(runs, ["7:7", "8:8"]);
}

#[test]
fn a_prompt_costs_one_look_at_the_queue_and_a_heavy_queue_few() {
    let fake = Fake::new(true);
    fake.running.borrow_mut().push(item(7, json!({})));
    let mut instance = source(CONFIG);
    let progress = |id: &str, value: u32| {
        vec![frame(
            "progress",
            json!({"prompt_id": id, "node": "1", "value": value, "max": 100}),
        )]
    };
    for value in 0..50 {
        fake.later(100);
        instance.on_frames(&fake, progress("id-7", value)).unwrap();
    }
    assert_eq!(fake.asked(), ["/prompt", "/system_stats", "/queue"]);
    // A prompt that is in nobody's queue.
    for value in 0..40 {
        fake.later(100);
        let reaction = instance
            .on_frames(&fake, progress("elsewhere", value))
            .unwrap();
        assert!(reaction.observations.is_empty());
    }
    assert_eq!(fake.asked(), ["/prompt", "/queue"]);
    // A queue that is too large.
    fake.limit.set(60);
    for value in 0..40 {
        fake.later(100);
        instance.on_frames(&fake, progress("id-9", value)).unwrap();
    }
    assert_eq!(fake.asked(), ["/prompt", "/queue"]);
    // A queue that is too long: nothing but its length is asked for, and a poll brings the graph.
    fake.limit.set(64 << 20);
    fake.later(20_000);
    fake.pending
        .borrow_mut()
        .extend((400..520).map(|number| item(number, json!({}))));
    instance.on_frames(&fake, progress("id-7b", 1)).unwrap();
    assert_eq!(fake.asked(), ["/prompt"]);
    *fake.running.borrow_mut() = vec![item(9, json!({}))];
    let old = Fake::new(false);
    *old.running.borrow_mut() = vec![item(9, json!({}))];
    instance.poll(&old, None, &[]).unwrap();
    let reaction = instance.on_frames(&fake, progress("id-9", 1)).unwrap();
    assert_eq!(reaction.observations.len(), 2);
    assert!(fake.asked().is_empty());
}

#[test]
fn frames_that_are_nonsense_say_nothing() {
    let fake = Fake::new(true);
    fake.running.borrow_mut().push(item(7, json!({})));
    let mut instance = source(CONFIG);
    let deep = format!("{}{}", "[".repeat(5000), "]".repeat(5000));
    let nan = r#"{"type": "progress", "data": {"prompt_id": "id-7", "node": "1", "value": NaN, "max": 4}}"#;
    for odd in [
        "",
        "{",
        "null",
        "7",
        "{}",
        r#"{"type": 7}"#,
        r#"{"type": "progress"}"#,
        r#"{"type": "progress", "data": []}"#,
        r#"{"type": "progress", "data": {"prompt_id": "id-7", "node": "1", "value": 1e308, "max": 0}}"#,
        r#"{"type": "progress", "data": {"prompt_id": "id-7", "node": "1", "value": -1, "max": -1}}"#,
        r#"{"type": "progress_state", "data": {"prompt_id": "id-7", "nodes": {"1": 7, "x": {}, "1.0.0.1": {"value": "?"}}}}"#,
        r#"{"type": "execution_cached", "data": {"prompt_id": "id-7", "nodes": [1, null, {}]}}"#,
        nan,
        &deep,
    ] {
        let frames = vec![
            text(odd),
            Frame::Message(Message::Binary(vec![0; 100])),
            Frame::Dropped(3),
        ];
        let reaction = instance.on_frames(&fake, frames).unwrap();
        assert!(reaction.refresh && reaction.observations.len() < 5);
        let mut bar = Bar::default();
        reaction
            .observations
            .iter()
            .for_each(|observation| bar.take(observation));
        assert!(bar.percent <= 100.0);
    }
}

#[test]
fn the_socket_is_our_own_and_can_be_left_out() {
    for (url, expected) in [
        (
            "http://comfy:8188/",
            "ws://comfy:8188/ws?clientId=0191e000-0000-7000-8000-000000000001",
        ),
        (
            "HTTPS://h/x/",
            "wss://h/x/ws?clientId=0191e000-0000-7000-8000-000000000001",
        ),
    ] {
        let config = json!({"url": url, "headers": {"x-a": "b"}, "credential": "proxy"});
        let endpoints = source(&config.to_string()).endpoints();
        assert_eq!(endpoints.len(), 1);
        assert_eq!(
            endpoints[0].url.to_ascii_lowercase(),
            expected.to_ascii_lowercase()
        );
        assert!(endpoints[0].text_only && endpoints[0].hello.is_empty());
        assert!(matches!(endpoints[0].protocol, Protocol::Websocket));
        assert_eq!(endpoints[0].headers, [("x-a".to_owned(), "b".to_owned())]);
        assert_eq!(endpoints[0].credential.as_deref(), Some("proxy"));
    }
    let config = r#"{"url": "http://comfy:8188", "stream": false}"#;
    assert!(source(config).endpoints().is_empty());
}
