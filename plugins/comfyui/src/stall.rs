//! Signs that the server's worker thread is dead: it answers everything, and nothing moves.
//!
//! An exception outside the executor's own guard ends the only thread that runs prompts. The prompt stays where it is,
//! cancelling is answered with success and does nothing, and only a restart of ComfyUI helps. From outside a node that is
//! silent for hours looks the same, so nothing but the evidence is told, as a note.

use weir_sdk::Far;
use weir_sdk::bindings::weir::plugin::types::{Job, JobState, Observation, Progress};

use crate::job::Key;
use crate::source::Context;
use crate::wire::Terminal;

const MINUTE: u64 = 60_000;
/// A living worker takes the next prompt within a second.
const IDLE_FOR: u64 = 2 * MINUTE;
/// How often the terminal is read for the reason.
const TERMINAL_EVERY: u64 = 5 * MINUTE;
/// What Python prints when the thread that runs prompts ends by an exception: its name, and the outermost frame. The
/// ring of 300 pieces may have lost the first; an error that the executor caught has neither.
const DEATH: [&str; 2] = ["(prompt_worker)", ", in prompt_worker"];

impl<F: Far> Context<'_, F> {
    /// Notes on what does not move. `jobs`: everything that is unfinished.
    pub fn stalled(&mut self, jobs: &[Job]) -> Vec<Observation> {
        let Some(limit) = self.config.stalled_after else {
            return Vec::new();
        };
        let now = self.now;
        let running: Vec<(&Job, u64)> = jobs
            .iter()
            .filter(|job| job.state == JobState::Running)
            .map(|job| (job, Key::of(job).digest()))
            .collect();
        let next = jobs.iter().find(|job| job.position == Some(0));
        // The next prompt counts only while nothing runs.
        let idle = next
            .filter(|_| running.is_empty())
            .map(|job| Key::of(job).digest());
        let mut watched: Vec<u64> = running.iter().map(|(_, digest)| *digest).collect();
        watched.extend(idle);
        self.cursor.watch(&watched, now);

        let mut notes = Vec::new();
        for (job, digest) in running {
            let since = self.cursor.since(digest).unwrap_or(now);
            let heard = self.memory.stream.heard(&job.id).unwrap_or_default();
            let silent_since = since.max(heard);
            if now.saturating_sub(silent_since) >= limit {
                let cause = self.cause();
                notes.push(note(
                    job,
                    format!(
                        "no sign of life since {}{cause}; unless a node takes that long, the server's worker thread is dead, and only a restart of ComfyUI helps",
                        clock(silent_since)
                    ),
                ));
            }
        }
        if let (Some(job), Some(digest)) = (next, idle) {
            let since = self.cursor.since(digest).unwrap_or(now);
            if now.saturating_sub(since) >= IDLE_FOR {
                let cause = self.cause();
                notes.push(note(
                    job,
                    format!(
                        "nothing runs and nothing is begun since {}{cause}: the server's worker thread is dead or stuck, and only a restart of ComfyUI helps",
                        clock(since)
                    ),
                ));
            }
        }
        notes
    }

    /// What the terminal says about the worker's end, where the operator lets it be read.
    fn cause(&mut self) -> String {
        if !self.config.logs {
            return String::new();
        }
        let memory = &mut self.memory.terminal;
        if memory
            .0
            .is_none_or(|at| self.now.saturating_sub(at) >= TERMINAL_EVERY)
        {
            memory.0 = Some(self.now);
            let terminal = self.client.json::<Terminal>("/internal/logs/raw");
            memory.1 = terminal.is_ok_and(|terminal| tells_of_death(&terminal));
        }
        if memory.1 {
            " (its terminal shows an exception in the thread prompt_worker)".to_owned()
        } else {
            String::new()
        }
    }
}

fn tells_of_death(terminal: &Terminal) -> bool {
    let pieces = terminal.entries.good.iter();
    let mut texts = pieces.filter_map(|piece| piece.m.0.as_deref());
    texts.any(|text| DEATH.iter().any(|sign| text.contains(sign)))
}

/// A note says nothing about how far it is.
fn note(job: &Job, note: String) -> Observation {
    Observation::Progress(Progress {
        id: job.id.clone(),
        run: job.run.clone(),
        step: None,
        done: 0.0,
        total: None,
        note: Some(note),
    })
}

/// `14:05 UTC`.
fn clock(at: u64) -> String {
    let minutes = at / MINUTE;
    format!("{:02}:{:02} UTC", minutes / 60 % 24, minutes % 60)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_terminal_tells_of_the_worker_by_its_name_or_its_outermost_frame() {
        // Pieces as ComfyUI 0.3.75 had them when an exception could not be shown, and when a node raised.
        for (piece, is_death) in [
            ("Thread-1 (prompt_worker)", true),
            (
                "  File \"/srv/comfy/base375/main.py\", line 202, in prompt_worker\n",
                true,
            ),
            (
                "  File \"/srv/comfy/base375/execution.py\", line 590, in execute\n",
                false,
            ),
            ("ValueError: boom\n", false),
            ("Prompt executed in 0.30 seconds", false),
        ] {
            let raw =
                serde_json::json!({"entries": [{"t": "x", "m": "^"}, {"t": "x", "m": piece}]});
            let terminal = serde_json::from_value(raw).unwrap();
            assert_eq!(tells_of_death(&terminal), is_death, "{piece}");
        }
    }
}
