//! The WebSocket of one ComfyUI server: where it is, and what its frames mean.
//!
//! Which prompts a client hears of is the server's decision: its own, and those that were posted without a client id.
//! The graph of a prompt is in no frame, so it is read from the queue when its first frame comes; an instance may have
//! been dropped in between.

use std::collections::VecDeque;

use weir_sdk::bindings::weir::plugin::types::Observation;
use weir_sdk::{Failure, Far, Level};

use crate::bindings::exports::weir::plugin::streams::{
    Endpoint, Frame as Incoming, Message, Protocol, Reaction,
};
use crate::client::{Client, Trouble, parse, segment};
use crate::frame::Frame;
use crate::job::Views;
use crate::live::{Beginning, Run};
use crate::source::{Source, version};
use crate::wire::{Prompt, Queue, Remaining, SystemStats};

const SOCKET: &str = "ws";
/// A server runs one prompt at a time; the others are on their way out.
const RUNS_MAX: usize = 4;
const BEGINNINGS_MAX: usize = 8;
/// The queue repeats every waiting prompt with its UI graph, and the server builds the answer on the loop that serves
/// everybody: the larger it is, the longer it is left alone. A megabyte is 4 s.
const READ_EVERY: u64 = 50;
const BYTES_PER_MILLISECOND: u64 = 256;
/// The host gives 2 s for frames, and the next ones wait meanwhile.
const TIMEOUT_MS: u32 = 1000;
/// A longer queue is left to the polls.
const REMAINING_MAX: u64 = 100;
/// How long a queue that could not be read is left alone.
const UNREADABLE_FOR: u64 = 10_000;
/// How long a prompt that was not in the queue is not looked for again.
const ABSENT_FOR: u64 = 5000;
const ABSENT_MAX: usize = 32;

/// What an instance knows of running prompts. All of it can be read again.
#[derive(Debug, Default)]
pub struct Memory {
    runs: VecDeque<Run>,
    /// Of prompts whose graph is not known yet.
    beginnings: VecDeque<(String, Beginning)>,
    absent: VecDeque<(String, u64)>,
    /// What ran when a poll read the queue.
    offered: Vec<Prompt>,
    not_before: u64,
    version: Option<String>,
    has_version: bool,
    /// The prompt that was heard of last, and when.
    heard: Option<(String, u64)>,
    /// Something began, ended or was missed since a poll last asked.
    has_news: bool,
}

impl Memory {
    /// A poll read the queue: what runs need not be read again.
    pub fn offer<'a>(&mut self, running: impl Iterator<Item = &'a Prompt>) {
        self.offered = running.take(RUNS_MAX).cloned().collect();
    }

    /// The history had its end: frames that are still on their way tell nothing more.
    pub fn forget(&mut self, prompt: &str) {
        self.runs.retain(|run| run.prompt.id != prompt);
        self.beginnings.retain(|(id, _)| id != prompt);
    }

    /// Whether frames gave a reason to look since the last time: what came and went may be in the history alone.
    pub fn take_news(&mut self) -> bool {
        std::mem::take(&mut self.has_news)
    }

    /// When a frame of this prompt came last.
    pub fn heard(&self, prompt: &str) -> Option<u64> {
        let (_, at) = self.heard.as_ref().filter(|(id, _)| id == prompt)?;
        Some(*at)
    }
}

impl Source {
    /// One socket, under the client id that prompts submitted through weir have.
    pub fn endpoints(&self) -> Vec<Endpoint> {
        if !self.config.stream {
            return Vec::new();
        }
        // "http" becomes "ws", "https" becomes "wss".
        let base = self.config.base.get(4..).unwrap_or_default();
        vec![Endpoint {
            id: SOCKET.to_owned(),
            protocol: Protocol::Websocket,
            url: format!("ws{base}/ws?clientId={}", segment(&self.uuid)),
            headers: self.config.headers.clone(),
            credential: self.config.credential.clone(),
            subprotocols: Vec::new(),
            hello: Vec::new(),
            text_only: true,
        }]
    }

    /// Takes frames in the order in which they came. An end is only a reason to look: the history has the verdict.
    pub fn on_frames(
        &mut self,
        far: &impl Far,
        frames: Vec<Incoming>,
    ) -> Result<Reaction, Failure> {
        let mut stream = Stream {
            client: Client::new(far, &self.config).within(TIMEOUT_MS),
            now: far.now(),
            memory: &mut self.memory.stream,
            ended: Vec::new(),
            refresh: false,
        };
        for frame in frames {
            match frame {
                Incoming::Message(Message::Text(text)) => {
                    if let Some(frame) = Frame::parse(&text) {
                        stream.take(frame);
                    }
                }
                Incoming::Message(Message::Binary(_)) => {}
                Incoming::Connected | Incoming::Dropped(_) => {
                    stream.memory.runs.iter_mut().for_each(Run::gap);
                    stream.refresh = true;
                }
            }
        }
        let (ended, refresh) = (stream.ended, stream.refresh);
        self.memory.stream.has_news |= refresh;
        let views = Views {
            workflow: self.config.workflow.as_deref(),
            version: self.memory.stream.version.as_deref(),
            queue_unreadable: false,
        };
        let observations: Vec<Observation> = ended
            .into_iter()
            .flat_map(|mut run| run.tell(&views))
            .collect();
        let runs = self.memory.stream.runs.iter_mut();
        let observations = observations
            .into_iter()
            .chain(runs.flat_map(|run| run.tell(&views)));
        Ok(Reaction {
            observations: observations.collect(),
            refresh,
            send: Vec::new(),
        })
    }
}

/// One call's work.
struct Stream<'a, F> {
    client: Client<'a, F>,
    now: u64,
    memory: &'a mut Memory,
    /// Prompts that are over, with what is still to be told.
    ended: Vec<Run>,
    refresh: bool,
}

impl<F: Far> Stream<'_, F> {
    fn take(&mut self, frame: Frame) {
        match frame {
            Frame::Status => self.refresh = true,
            Frame::Start { prompt, at } => {
                // Clients may post an id twice: it is another run now.
                self.memory.runs.retain(|run| run.prompt.id != prompt);
                self.memory.absent.retain(|(id, _)| *id != prompt);
                self.memory.offered.retain(|offered| offered.id != prompt);
                self.begin(&prompt, at, Vec::new());
            }
            Frame::Cached { prompt, nodes } => self.begin(&prompt, None, nodes),
            Frame::Executing {
                prompt: Some(prompt),
                node: Some(node),
            } => {
                if let Some(run) = self.run(&prompt) {
                    run.executing(&node);
                }
            }
            Frame::Executing {
                prompt: None,
                node: Some(node),
            } => self.returned(&node),
            Frame::Executing { prompt, node: None } => {
                if let Some(prompt) = prompt {
                    self.end(&prompt, true);
                }
                self.refresh = true;
            }
            Frame::Progress {
                prompt,
                node,
                value,
                max,
            } => {
                if let Some(run) = self.run(&prompt) {
                    run.progress(&node, value, max);
                }
            }
            Frame::State { prompt, nodes } => {
                if self.run(&prompt).is_some_and(|run| !run.fits(&nodes)) {
                    self.memory.runs.retain(|run| run.prompt.id != prompt);
                }
                if let Some(run) = self.run(&prompt) {
                    run.state(nodes);
                }
            }
            Frame::Executed { prompt, node } => {
                if let Some(run) = self.run(&prompt) {
                    run.executed(&node);
                }
            }
            Frame::End { prompt, is_success } => {
                self.end(&prompt, is_success);
                self.refresh = true;
            }
        }
    }

    /// What is told before the first node is kept until the graph is known.
    fn begin(&mut self, prompt: &str, at: Option<f64>, cached: Vec<String>) {
        let beginning = Beginning { at, cached };
        if let Some(run) = self.run(prompt) {
            run.begin(beginning);
            return;
        }
        let beginnings = &mut self.memory.beginnings;
        match beginnings.iter_mut().find(|(id, _)| id == prompt) {
            Some((_, known)) => {
                known.at = beginning.at.or(known.at);
                known.cached.extend(beginning.cached);
            }
            None => {
                if beginnings.len() >= BEGINNINGS_MAX {
                    beginnings.pop_front();
                }
                beginnings.push_back((prompt.to_owned(), beginning));
            }
        }
    }

    /// The prompt is over: nothing more comes of it.
    fn end(&mut self, prompt: &str, is_success: bool) {
        self.memory.beginnings.retain(|(id, _)| id != prompt);
        let runs = &mut self.memory.runs;
        let Some(at) = runs.iter().position(|run| run.prompt.id == prompt) else {
            return;
        };
        if let Some(mut run) = runs.remove(at) {
            if is_success {
                run.over();
            }
            self.ended.push(run);
        }
    }

    /// The server greets the client whose prompt runs with the node alone: it is the one that runs.
    fn returned(&mut self, node: &str) {
        let Some(queue) = self.read() else { return };
        let Some(running) = queue.queue_running.good.into_iter().next() else {
            return;
        };
        let id = running.id.clone();
        self.know(running);
        let run = self.memory.runs.iter_mut().find(|run| run.prompt.id == id);
        if let Some(run) = run.filter(|run| run.has(node)) {
            run.executing(node);
        }
    }

    /// The run of a prompt; reads its graph where it is not known.
    fn run(&mut self, id: &str) -> Option<&mut Run> {
        if !self.memory.runs.iter().any(|run| run.prompt.id == id) {
            let now = self.now;
            self.memory.absent.retain(|(_, until)| *until > now);
            if self.memory.absent.iter().any(|(absent, _)| absent == id) {
                return None;
            }
            let offered = &mut self.memory.offered;
            if let Some(at) = offered.iter().position(|offered| offered.id == id) {
                let prompt = offered.swap_remove(at);
                self.know(prompt);
                return self.run(id);
            }
            let queue = self.read()?;
            let all = queue.queue_running.good.into_iter();
            let mut all = all.chain(queue.queue_pending.good);
            match all.find(|prompt| prompt.id == id) {
                Some(prompt) => self.know(prompt),
                None => self.is_absent(id),
            }
        }
        self.memory.heard = Some((id.to_owned(), self.now));
        let mut runs = self.memory.runs.iter_mut();
        runs.find(|run| run.prompt.id == id)
    }

    /// A prompt in nobody's queue: over already, or none of this server's.
    fn is_absent(&mut self, id: &str) {
        let absent = &mut self.memory.absent;
        if absent.len() >= ABSENT_MAX {
            absent.pop_front();
        }
        absent.push_back((id.to_owned(), self.now + ABSENT_FOR));
        self.refresh = true;
    }

    fn know(&mut self, prompt: Prompt) {
        let runs = &mut self.memory.runs;
        if runs.iter().any(|run| run.prompt.id == prompt.id) {
            return;
        }
        if runs.len() >= RUNS_MAX {
            runs.pop_front();
        }
        let id = prompt.id.clone();
        let mut run = Run::new(prompt);
        let beginnings = &mut self.memory.beginnings;
        if let Some(at) = beginnings.iter().position(|(known, _)| *known == id)
            && let Some((_, beginning)) = beginnings.remove(at)
        {
            run.begin(beginning);
        }
        self.memory.runs.push_back(run);
    }

    /// One look at the queue, not too often.
    fn read(&mut self) -> Option<Queue> {
        if self.now < self.memory.not_before {
            return None;
        }
        let is_worth_it = match self.client.json::<Remaining>("/prompt") {
            Ok(remaining) => remaining.exec_info.queue_remaining <= REMAINING_MAX,
            // It stalls, loading a model maybe; one request waits for it, and the polls go on.
            Err(Trouble::NoAnswer(_)) => false,
            Err(_) => true,
        };
        if !is_worth_it {
            self.memory.not_before = self.now + UNREADABLE_FOR;
            return None;
        }
        self.know_version();
        let answer = self.client.get("/queue");
        let wait = match &answer {
            Ok(body) => READ_EVERY + body.len() as u64 / BYTES_PER_MILLISECOND,
            Err(_) => UNREADABLE_FOR,
        };
        self.memory.not_before = self.now + wait;
        match answer.and_then(|body| parse("/queue", body)) {
            Ok(queue) => Some(queue),
            Err(trouble) => {
                let message = format!("frames without a graph: {}", Failure::from(trouble).message);
                self.client.far.log(Level::Warn, &message);
                None
            }
        }
    }

    /// A run that is first seen here has the same labels as one that is first polled.
    fn know_version(&mut self) {
        if !std::mem::replace(&mut self.memory.has_version, true)
            && let Ok(stats) = self.client.json::<SystemStats>("/system_stats")
        {
            self.memory.version = version(&stats);
        }
    }
}
