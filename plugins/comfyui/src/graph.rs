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
    let by_id = index(nodes);
    let shown = needed(&by_id, outputs, &|_| false);
    let needed = needed(&by_id, outputs, &|id| reports.cached.contains(id));
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

/// What is known of one node while its prompt runs.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Mark {
    /// Its output was there before the prompt began.
    Cached,
    /// Done and total, in the node's own units.
    Running(f64, f64),
    Finished,
}

/// The nodes of a running prompt, each with its mark, and their links.
#[derive(Debug)]
pub struct Standing<'a> {
    nodes: &'a [(String, Node)],
    by_id: HashMap<&'a str, &'a Node>,
    /// What the outputs need at all.
    shown: HashSet<&'a str>,
    /// What the outputs still need: nothing behind a cached or finished node.
    needed: HashSet<&'a str>,
}

impl<'a> Standing<'a> {
    pub fn new(
        nodes: &'a [(String, Node)],
        outputs: &'a [String],
        mark: &dyn Fn(&str) -> Option<Mark>,
    ) -> Standing<'a> {
        let by_id = index(nodes);
        let is_behind = |id: &str| matches!(mark(id), Some(Mark::Cached | Mark::Finished));
        Standing {
            shown: needed(&by_id, outputs, &|_| false),
            needed: needed(&by_id, outputs, &is_behind),
            nodes,
            by_id,
        }
    }

    /// A node that ran keeps its state. One that did not run and that nothing unfinished needs will not run any more: it
    /// was cached, or a lazy input that nobody asked for.
    fn state(&self, id: &str, mark: Option<Mark>) -> StepState {
        match mark {
            Some(Mark::Cached) => StepState::Skipped,
            Some(Mark::Running(..)) => StepState::Running,
            Some(Mark::Finished) => StepState::Completed,
            None if self.needed.contains(id) => StepState::Pending,
            None => StepState::Skipped,
        }
    }

    pub fn steps(&self, mark: &dyn Fn(&str) -> Option<Mark>) -> Vec<Step> {
        let shown = self.nodes.iter();
        shown
            .filter(|(id, _)| self.shown.contains(id.as_str()))
            .take(STEPS_MAX)
            .map(|(id, node)| {
                let mark = mark(id);
                let (done, total) = match mark {
                    Some(Mark::Running(done, total)) if total > 0.0 => (Some(done), Some(total)),
                    _ => (None, None),
                };
                Step {
                    done,
                    total,
                    ..step(id, node, self.state(id, mark), None)
                }
            })
            .collect()
    }

    /// The name under which a node is shown.
    pub fn name(&self, id: &str) -> String {
        self.by_id
            .get(id)
            .map_or_else(|| text::line(id, NAME_MAX), |node| name(id, node))
    }

    /// Whether everything that a node is fed with is settled.
    pub fn is_fed(&self, id: &str, mark: &dyn Fn(&str) -> Option<Mark>) -> bool {
        let Some(node) = self.by_id.get(id) else {
            return true;
        };
        node.links()
            .filter(|from| self.by_id.contains_key(from))
            .all(|from| matches!(mark(from), Some(Mark::Cached | Mark::Finished)))
    }
}

fn index(nodes: &[(String, Node)]) -> HashMap<&str, &Node> {
    nodes.iter().map(|(id, node)| (id.as_str(), node)).collect()
}

fn step(id: &str, node: &Node, state: StepState, error: Option<String>) -> Step {
    Step {
        id: id.to_owned(),
        name: name(id, node),
        state,
        started: None,
        finished: None,
        done: None,
        total: None,
        error,
    }
}

/// Its title, else its class, else its id.
fn name(id: &str, node: &Node) -> String {
    let title = node.meta.0.as_ref();
    let title = title.and_then(|meta| meta.title.0.as_deref());
    let names = [title, node.class_type.0.as_deref()];
    let names = names.into_iter().flatten();
    names
        .map(|name| text::line(name, NAME_MAX))
        .find(|name| !name.is_empty())
        .unwrap_or_else(|| text::line(id, NAME_MAX))
}

impl Node {
    /// The nodes it is fed from.
    fn links(&self) -> impl Iterator<Item = &str> {
        let inputs = self.inputs.0.iter().flat_map(|inputs| &inputs.0);
        inputs.map(|(_, Link(node))| node.as_str())
    }
}

/// Walks back from the outputs over the links and stops where `is_behind`, as ComfyUI's execution list does at cached
/// nodes.
fn needed<'a>(
    nodes: &HashMap<&'a str, &'a Node>,
    outputs: &'a [String],
    is_behind: &dyn Fn(&str) -> bool,
) -> HashSet<&'a str> {
    let mut found = HashSet::new();
    let mut todo: Vec<&str> = outputs.iter().map(String::as_str).collect();
    while let Some(id) = todo.pop() {
        let Some(node) = nodes.get(id) else { continue };
        if found.insert(id) && !is_behind(id) {
            todo.extend(node.links());
        }
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
