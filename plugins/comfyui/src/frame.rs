//! Frames of ComfyUI's WebSocket, as far as a monitor needs them.
//!
//! Other extensions send types of their own, so a frame that is not understood is no error.

use serde::Deserialize;
use serde::de::DeserializeOwned;

use crate::lenient::{self, Entries, Items, Lenient};

/// One text frame.
#[derive(Debug)]
pub enum Frame {
    /// The length of the queue was told; it did not need to change.
    Status,
    Start {
        prompt: String,
        at: Option<f64>,
    },
    Cached {
        prompt: String,
        nodes: Vec<String>,
    },
    /// `prompt` is left out when the client that the running prompt belongs to comes back.
    Executing {
        prompt: Option<String>,
        /// None = the prompt is over.
        node: Option<String>,
    },
    Progress {
        prompt: String,
        node: String,
        value: f64,
        max: f64,
    },
    State {
        prompt: String,
        nodes: Vec<(String, NodeState)>,
    },
    Executed {
        prompt: String,
        node: String,
    },
    /// Success, error or interruption; the history has the verdict, a moment later.
    End {
        prompt: String,
        is_success: bool,
    },
}

/// One node in `progress_state`.
#[derive(Debug, Default, Clone, Deserialize)]
#[serde(default)]
pub struct NodeState {
    value: Lenient<f64>,
    max: Lenient<f64>,
    state: Lenient<String>,
    real_node_id: Lenient<String>,
}

impl NodeState {
    pub fn is_finished(&self) -> bool {
        self.state.0.as_deref() == Some("finished")
    }

    /// Done and total.
    pub fn done(&self) -> (f64, f64) {
        (
            self.value.0.unwrap_or_default(),
            self.max.0.unwrap_or_default(),
        )
    }

    /// The node of the prompt that it came from.
    pub fn real(&self) -> Option<&str> {
        self.real_node_id.0.as_deref()
    }
}

#[derive(Deserialize)]
struct Kind {
    r#type: String,
}

#[derive(Deserialize)]
struct Body<T> {
    data: T,
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct Data {
    prompt_id: Lenient<String>,
    timestamp: Lenient<f64>,
    node: Lenient<String>,
    value: Lenient<f64>,
    max: Lenient<f64>,
    exception_type: Lenient<String>,
}

#[derive(Deserialize)]
struct CachedData {
    prompt_id: String,
    nodes: Items<String>,
}

#[derive(Deserialize)]
struct StateData {
    prompt_id: String,
    nodes: Entries<NodeState>,
}

impl Frame {
    /// None for what says nothing to a monitor.
    pub fn parse(text: &str) -> Option<Frame> {
        match Frame::of(text) {
            Ok(frame) => frame,
            // Python writes NaN and half surrogates.
            Err(_) => {
                let mut bytes = text.as_bytes().to_vec();
                if !lenient::repair(&mut bytes) {
                    return None;
                }
                Frame::of(std::str::from_utf8(&bytes).ok()?).ok()?
            }
        }
    }

    fn of(text: &str) -> serde_json::Result<Option<Frame>> {
        let kind = serde_json::from_str::<Kind>(text)?.r#type;
        Ok(match kind.as_str() {
            "status" => Some(Frame::Status),
            "execution_cached" => {
                let data: CachedData = data(text)?;
                Some(Frame::Cached {
                    prompt: data.prompt_id,
                    nodes: data.nodes.good,
                })
            }
            "progress_state" => {
                let data: StateData = data(text)?;
                Some(Frame::State {
                    prompt: data.prompt_id,
                    nodes: data.nodes.0,
                })
            }
            "execution_start"
            | "executing"
            | "progress"
            | "executed"
            | "execution_success"
            | "execution_error"
            | "execution_interrupted" => plain(&kind, data(text)?),
            _ => None,
        })
    }
}

fn data<T: DeserializeOwned>(text: &str) -> serde_json::Result<T> {
    Ok(serde_json::from_str::<Body<T>>(text)?.data)
}

fn plain(kind: &str, data: Data) -> Option<Frame> {
    let (prompt, node) = (data.prompt_id.0, data.node.0);
    Some(match kind {
        "executing" if prompt.is_some() || node.is_some() => Frame::Executing { prompt, node },
        "execution_start" => Frame::Start {
            prompt: prompt?,
            at: data.timestamp.0,
        },
        "progress" => Frame::Progress {
            prompt: prompt?,
            node: node?,
            value: data.value.0?,
            max: data.max.0?,
        },
        "executed" => Frame::Executed {
            prompt: prompt?,
            node: node?,
        },
        // A blocked output is no end: the prompt goes on.
        "execution_error" if data.exception_type.0.as_deref() == Some("ExecutionBlocked") => {
            return None;
        }
        "execution_success" | "execution_error" | "execution_interrupted" => Frame::End {
            prompt: prompt?,
            is_success: kind == "execution_success",
        },
        _ => return None,
    })
}
