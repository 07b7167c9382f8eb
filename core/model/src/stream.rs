//! Streams of a source: what it wants connected, the frames that come, and what they lead to.

use crate::observation::Observation;

/// How a connection speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Protocol {
    Websocket,
    /// Server-sent events.
    Sse,
}

impl Protocol {
    /// One word for views and logs.
    pub fn name(self) -> &'static str {
        match self {
            Protocol::Websocket => "websocket",
            Protocol::Sse => "sse",
        }
    }
}

/// What is sent or was received as one piece.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum StreamMessage {
    Text(String),
    Binary(Vec<u8>),
}

impl StreamMessage {
    /// Bytes of what it carries.
    pub fn len(&self) -> usize {
        match self {
            StreamMessage::Text(text) => text.len(),
            StreamMessage::Binary(bytes) => bytes.len(),
        }
    }

    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A connection that weir holds for a source.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Never empty, unique within its source.
    pub id: String,
    pub protocol: Protocol,
    /// Not yet checked against what the source may reach.
    pub url: String,
    pub headers: Vec<(String, String)>,
    /// Name of the credential that signs the handshake.
    pub credential: Option<String>,
    pub subprotocols: Vec<String>,
    /// Sent after every connect, in order.
    pub hello: Vec<StreamMessage>,
    /// Binary frames are dropped before they cost anything.
    pub text_only: bool,
}

/// One thing that happened on a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Frame {
    Message(StreamMessage),
    Connected,
    /// So many frames were left out here.
    Dropped(u32),
}

/// What a source makes of some frames.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Reaction {
    pub observations: Vec<Observation>,
    /// Something changed: poll soon.
    pub refresh: bool,
    /// To be sent on the same connection, in order.
    pub send: Vec<StreamMessage>,
}
