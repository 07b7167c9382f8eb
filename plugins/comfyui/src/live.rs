//! A prompt while it runs, as far as frames tell: which node is how far.
//!
//! Since 0.3.45 `progress_state` repeats all nodes so far and is the whole truth; before, a node is done when the next
//! one comes. Whoever watches may have missed the beginning, so nothing is concluded from silence.

use std::collections::{BTreeSet, HashMap, HashSet};

use weir_sdk::bindings::weir::plugin::types::{Job, Observation, Progress, Step, StepState};
use weir_sdk::text;

use crate::frame::NodeState;
use crate::graph::{Mark, Standing};
use crate::job::{Key, Views, millis, plain};
use crate::wire::Prompt;

/// Ephemeral nodes of one node that are told apart.
const CHILDREN_MAX: usize = 1000;
/// Progress reports of one prompt in one call.
const REPORTS_MAX: usize = 64;
const NOTE_MAX: usize = 200;

/// What is told of a prompt before its first node.
#[derive(Debug, Default)]
pub struct Beginning {
    pub at: Option<f64>,
    pub cached: Vec<String>,
}

/// One running prompt.
#[derive(Debug)]
pub struct Run {
    pub prompt: Prompt,
    ids: HashSet<String>,
    started: Option<u64>,
    cached: HashSet<String>,
    /// Nodes of the prompt that were heard of.
    nodes: HashMap<String, Node>,
    /// `progress_state` comes: nothing has to be concluded from the order of frames.
    has_state: bool,
    /// The node that was said to be executing last, ephemeral or not.
    current: Option<String>,
    /// A node's state is another one than was told.
    has_moved: bool,
    /// Nodes whose fraction is another one than was told.
    touched: BTreeSet<String>,
}

#[derive(Debug, Default, PartialEq)]
struct Node {
    is_finished: bool,
    done: f64,
    total: f64,
    /// What it expanded into: the fraction of each.
    children: HashMap<String, f64>,
}

impl Node {
    /// Children are not known in advance and the node itself comes last, so the whole is one more than there are.
    fn mark(&self) -> Mark {
        if self.is_finished {
            Mark::Finished
        } else if self.children.is_empty() {
            Mark::Running(self.done, self.total)
        } else {
            let done: f64 = self.children.values().sum();
            Mark::Running(done, self.children.len() as f64 + 1.0)
        }
    }
}

impl Run {
    pub fn new(prompt: Prompt) -> Run {
        Run {
            ids: prompt.nodes.iter().map(|(id, _)| id.clone()).collect(),
            prompt,
            started: None,
            cached: HashSet::new(),
            nodes: HashMap::new(),
            has_state: false,
            current: None,
            has_moved: true,
            touched: BTreeSet::new(),
        }
    }

    fn mark(&self, id: &str) -> Option<Mark> {
        if self.cached.contains(id) {
            return Some(Mark::Cached);
        }
        self.nodes.get(id).map(Node::mark)
    }

    fn standing(&self) -> Standing<'_> {
        Standing::new(&self.prompt.nodes, &self.prompt.outputs, &|id| {
            self.mark(id)
        })
    }

    /// Changes one node and notes what about it is news.
    fn change(&mut self, real: &str, change: impl FnOnce(&mut Node)) {
        let is_new = !self.nodes.contains_key(real);
        let node = self.nodes.entry(real.to_owned()).or_default();
        let before = node.mark();
        change(node);
        let after = node.mark();
        if is_new || matches!(after, Mark::Finished) && before != after {
            self.has_moved = true;
        }
        if before != after {
            self.touched.insert(real.to_owned());
        }
    }

    /// What was told before its first node.
    pub fn begin(&mut self, beginning: Beginning) {
        self.started = beginning.at.and_then(millis).or(self.started);
        self.cached.extend(beginning.cached);
        self.has_moved = true;
    }

    /// Frames were missed: the one that was executing need not be the one before the next.
    pub fn gap(&mut self) {
        self.current = None;
    }

    /// Whether it has a node that this one is, or came from.
    pub fn has(&self, id: &str) -> bool {
        origin(&self.ids, id).is_some()
    }

    /// Whether `nodes` can be of this run: what is finished stays so.
    pub fn fits(&self, nodes: &[(String, NodeState)]) -> bool {
        let still: HashSet<&str> = nodes
            .iter()
            .filter(|(_, state)| state.is_finished())
            .map(|(id, _)| id.as_str())
            .collect();
        let mut finished = self.nodes.iter().filter(|(_, node)| node.is_finished);
        !self.has_state || finished.all(|(id, _)| still.contains(id.as_str()))
    }

    /// Takes all nodes so far.
    pub fn state(&mut self, nodes: Vec<(String, NodeState)>) {
        self.has_state = true;
        self.current = None;
        for (id, state) in nodes {
            let real = state.real().unwrap_or(&id);
            let Some(real) = origin(&self.ids, real).map(str::to_owned) else {
                continue;
            };
            let ((done, total), is_finished) = (state.done(), state.is_finished());
            self.change(&real, |node| {
                if id == real {
                    (node.done, node.total) = (done, total);
                    node.is_finished = is_finished;
                } else if node.children.len() < CHILDREN_MAX || node.children.contains_key(&id) {
                    let fraction = if is_finished {
                        1.0
                    } else {
                        fraction(done, total)
                    };
                    node.children.insert(id, fraction);
                }
            });
        }
    }

    pub fn progress(&mut self, id: &str, done: f64, total: f64) {
        let Some(real) = origin(&self.ids, id).map(str::to_owned) else {
            return;
        };
        self.change(&real, |node| {
            if id == real {
                (node.done, node.total) = (done, total);
            } else if node.children.len() < CHILDREN_MAX || node.children.contains_key(id) {
                let known = node.children.entry(id.to_owned()).or_default();
                *known = known.max(fraction(done, total));
            }
        });
    }

    /// The next node began; where that is all there is, the one before is done.
    pub fn executing(&mut self, id: &str) {
        let before = self.current.replace(id.to_owned());
        if let Some(before) = before
            && before != id
        {
            self.settle(&before);
        }
        let Some(real) = origin(&self.ids, id).map(str::to_owned) else {
            return;
        };
        self.change(&real, |node| {
            if id != real && node.children.len() < CHILDREN_MAX {
                node.children.entry(id.to_owned()).or_default();
            }
        });
    }

    /// No more node is executing.
    pub fn over(&mut self) {
        if let Some(last) = self.current.take() {
            self.settle(&last);
        }
    }

    pub fn executed(&mut self, id: &str) {
        if !self.has_state {
            self.settle(id);
        }
    }

    /// A node that was executing is left. One whose inputs are not all there was left to wait for a lazy one, and one
    /// that expanded waits for what it expanded into.
    fn settle(&mut self, id: &str) {
        if self.has_state {
            return;
        }
        let Some(real) = origin(&self.ids, id).map(str::to_owned) else {
            return;
        };
        let is_fed = self.standing().is_fed(&real, &|id| self.mark(id));
        self.change(&real, |node| {
            if id != real {
                if let Some(fraction) = node.children.get_mut(id) {
                    *fraction = 1.0;
                }
            } else if is_fed && node.children.is_empty() {
                node.is_finished = true;
            }
        });
    }

    /// What there is to tell since the last time: the whole view where a node's state is another one, and progress.
    pub fn tell(&mut self, views: &Views<'_>) -> Vec<Observation> {
        let (has_moved, touched) = (
            std::mem::take(&mut self.has_moved),
            std::mem::take(&mut self.touched),
        );
        if !has_moved && touched.is_empty() {
            return Vec::new();
        }
        let standing = self.standing();
        let steps = standing.steps(&|id| self.mark(id));
        let mut told = Vec::new();
        let key = Key::of_prompt(&self.prompt);
        for id in touched.iter().take(REPORTS_MAX) {
            // What is finished, the view tells.
            if let Some(Mark::Running(done, total)) = self.mark(id)
                && total > 0.0
            {
                told.push(Observation::Progress(Progress {
                    id: key.id.clone(),
                    run: key.run.clone(),
                    step: Some(id.clone()),
                    done,
                    total: Some(total),
                    note: Some(note(&steps, &standing.name(id), done, total)),
                }));
            }
        }
        if has_moved {
            let job = Job {
                started: self.started,
                steps,
                ..views.queued(&self.prompt, None)
            };
            told.insert(0, Observation::Job(job));
        }
        told
    }
}

/// The node of the prompt that an ephemeral node (`2.0.0.1`) came from.
fn origin<'a>(ids: &HashSet<String>, id: &'a str) -> Option<&'a str> {
    if ids.contains(id) {
        return Some(id);
    }
    let (head, _) = id.split_once('.')?;
    ids.contains(head).then_some(head)
}

/// `3 of 7 nodes; KSampler 12/20`.
fn note(steps: &[Step], name: &str, done: f64, total: f64) -> String {
    let of = steps.iter().filter(|step| step.state != StepState::Skipped);
    let finished = of
        .clone()
        .filter(|step| step.state == StepState::Completed)
        .count();
    // A node that tells nothing has 1 to do.
    let how_far = if total > 1.0 {
        format!(" {}/{}", short(done), short(total))
    } else {
        String::new()
    };
    let nodes = of.count();
    text::line(
        &format!("{finished} of {nodes} nodes; {name}{how_far}"),
        NOTE_MAX,
    )
}

fn short(number: f64) -> String {
    if number.fract() == 0.0 {
        plain(number)
    } else {
        format!("{number:.1}")
    }
}

fn fraction(done: f64, total: f64) -> f64 {
    if total > 0.0 && done.is_finite() {
        (done / total).clamp(0.0, 1.0)
    } else {
        0.0
    }
}
