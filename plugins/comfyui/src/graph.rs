//! The nodes of a prompt, which of them its outputs need, and what became of each.

use std::collections::{HashMap, HashSet};
use std::fmt;

use serde::Deserialize;
use serde::de::{Deserializer, IgnoredAny, SeqAccess, Visitor};
use weir_sdk::bindings::weir::plugin::types::{Step, StepState};
use weir_sdk::text;

use crate::lenient::{Entries, Lenient};

/// More nodes than this are not shown as steps.
const STEPS_MAX: usize = 2000;
const NAME_MAX: usize = 200;

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct Node {
    class_type: Lenient<String>,
    #[serde(rename = "_meta")]
    meta: Lenient<Meta>,
    inputs: Lenient<Entries<Link>>,
}

#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
struct Meta {
    title: Lenient<String>,
}

/// `[node_id, slot]`: the input is the output of another node. Any other value is no link.
#[derive(Debug, Clone)]
struct Link(String);

impl<'de> Deserialize<'de> for Link {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Link, D::Error> {
        struct LinkVisitor;

        impl<'de> Visitor<'de> for LinkVisitor {
            type Value = Link;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("[node_id, slot]")
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Link, A::Error> {
                let node: Lenient<String> = seq.next_element()?.unwrap_or_default();
                let slot: Lenient<f64> = seq.next_element()?.unwrap_or_default();
                let mut more = false;
                while seq.next_element::<IgnoredAny>()?.is_some() {
                    more = true;
                }
                match (node.0, slot.0, more) {
                    (Some(node), Some(_), false) => Ok(Link(node)),
                    _ => Err(serde::de::Error::custom("no link")),
                }
            }
        }

        deserializer.deserialize_seq(LinkVisitor)
    }
}

/// How the prompt stands, as far as its nodes are concerned.
#[derive(Debug, Clone, Copy)]
pub enum Outcome<'a> {
    Unfinished,
    Success,
    /// A node raised: its id and what it said.
    Failed {
        node: Option<&'a str>,
        error: &'a str,
    },
    Interrupted {
        node: Option<&'a str>,
    },
}

/// What the messages say about single nodes.
#[derive(Debug, Default)]
pub struct Reports<'a> {
    pub cached: HashSet<&'a str>,
    pub executed: HashSet<&'a str>,
}

/// The nodes that `outputs` need, in the order of the prompt, each with what is known of it. ComfyUI publishes no
/// times of single nodes, so there are none here.
pub fn steps(
    nodes: &[(String, Node)],
    outputs: &[String],
    reports: &Reports<'_>,
    outcome: Outcome<'_>,
) -> Vec<Step> {
    let by_id: HashMap<&str, &Node> = nodes.iter().map(|(id, node)| (id.as_str(), node)).collect();
    let shown = needed(&by_id, outputs, &HashSet::new());
    let needed = needed(&by_id, outputs, &reports.cached);
    let culprit = match outcome {
        Outcome::Failed { node, .. } | Outcome::Interrupted { node } => {
            node.map(|node| real_node(&by_id, node))
        }
        Outcome::Unfinished | Outcome::Success => None,
    };
    nodes
        .iter()
        .filter(|(id, _)| shown.contains(id.as_str()))
        .take(STEPS_MAX)
        .map(|(id, node)| {
            let is_needed = needed.contains(id.as_str()) && !reports.cached.contains(id.as_str());
            let state = match outcome {
                Outcome::Unfinished => StepState::Pending,
                Outcome::Failed { .. } if culprit == Some(id) => StepState::Failed,
                Outcome::Interrupted { .. } if culprit == Some(id) => StepState::Cancelled,
                _ if !is_needed => StepState::Skipped,
                Outcome::Success => StepState::Completed,
                _ if reports.executed.contains(id.as_str()) => StepState::Completed,
                // It was needed and not reached.
                _ => StepState::Skipped,
            };
            let error = match outcome {
                Outcome::Failed { error, .. } if state == StepState::Failed => {
                    Some(error.to_owned())
                }
                _ => None,
            };
            step(id, node, state, error)
        })
        .collect()
}

fn step(id: &str, node: &Node, state: StepState, error: Option<String>) -> Step {
    let title = node
        .meta
        .0
        .as_ref()
        .and_then(|meta| meta.title.0.as_deref());
    let name = [title, node.class_type.0.as_deref()]
        .into_iter()
        .flatten()
        .map(|name| text::line(name, NAME_MAX))
        .find(|name| !name.is_empty());
    Step {
        id: id.to_owned(),
        name: name.unwrap_or_else(|| text::line(id, NAME_MAX)),
        state,
        started: None,
        finished: None,
        done: None,
        total: None,
        error,
    }
}

/// Walks back from the outputs over the links and stops at cached nodes, as ComfyUI's execution list does.
fn needed<'a>(
    nodes: &HashMap<&'a str, &'a Node>,
    outputs: &'a [String],
    cached: &HashSet<&str>,
) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    let mut todo: Vec<&str> = outputs.iter().map(String::as_str).collect();
    while let Some(id) = todo.pop() {
        let Some(node) = nodes.get(id) else { continue };
        if !found.insert(id) || cached.contains(id) {
            continue;
        }
        todo.extend(
            node.inputs
                .0
                .iter()
                .flat_map(|inputs| &inputs.0)
                .map(|(_, Link(node))| node.as_str()),
        );
    }
    found
}

/// The node of the prompt that an ephemeral node (`2.0.0.1`) came from.
fn real_node<'a>(nodes: &HashMap<&'a str, &'a Node>, id: &'a str) -> &'a str {
    if nodes.contains_key(id) {
        return id;
    }
    id.split_once('.').map_or(id, |(head, _)| head)
}
