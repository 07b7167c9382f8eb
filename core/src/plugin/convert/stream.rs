//! Endpoints, frames and reactions across the border.

use std::collections::BTreeSet;

use weir_model::observation::Observation;
use weir_model::stream::{Endpoint, Frame, Protocol, Reaction, StreamMessage};

use super::super::Failure;
use super::super::contract::bindings::exports::weir::plugin::streams;
use super::super::gauge::Gauge;
use super::super::text::printable;
use super::{Invalid, NAME_BYTES_MAX, observations, unusable};

const ENDPOINTS_MAX: usize = 16;
const URL_BYTES_MAX: usize = 16 * 1024;
const HEADERS_MAX: usize = 64;
const HEADER_BYTES_MAX: usize = 32 * 1024;
const SUBPROTOCOLS_MAX: usize = 16;
/// Messages that one connect or one reaction may send.
const MESSAGES_MAX: usize = 64;
/// Of all these messages together.
const MESSAGES_BYTES_MAX: usize = 256 * 1024;

/// Checks what a source wants connected; one endpoint over the bounds refuses them all.
pub(in crate::plugin) fn endpoints(
    found: Vec<streams::Endpoint>,
) -> Result<Vec<Endpoint>, Failure> {
    if found.len() > ENDPOINTS_MAX {
        return Err(unusable(format!(
            "the plugin named {} endpoints, {ENDPOINTS_MAX} are allowed",
            found.len()
        )));
    }
    let mut ids = BTreeSet::new();
    let endpoints: Vec<Endpoint> = found.into_iter().map(endpoint).collect::<Result<_, _>>()?;
    match endpoints.iter().find(|endpoint| !ids.insert(&endpoint.id)) {
        Some(twice) => Err(unusable(format!(
            "the plugin named two endpoints `{}`",
            printable(&twice.id, NAME_BYTES_MAX)
        ))),
        None => Ok(endpoints),
    }
}

fn endpoint(found: streams::Endpoint) -> Result<Endpoint, Failure> {
    let shown = printable(&found.id, NAME_BYTES_MAX);
    let refused = |what: &str| unusable(format!("the endpoint `{shown}` of the plugin {what}"));
    let header_bytes: usize = found.headers.iter().map(|(n, v)| n.len() + v.len()).sum();
    let subprotocol = |text: &String| {
        let token = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte);
        !text.is_empty() && text.len() <= NAME_BYTES_MAX && text.bytes().all(token)
    };
    match () {
        () if found.id.is_empty() || found.id.len() > NAME_BYTES_MAX => {
            Err(refused("has no id of 1 to 256 bytes"))
        }
        () if found.url.len() > URL_BYTES_MAX => Err(refused("has a url of more than 16 KiB")),
        () if found.headers.len() > HEADERS_MAX || header_bytes > HEADER_BYTES_MAX => {
            Err(refused("has more than 64 headers or 32 KiB of them"))
        }
        () if found.subprotocols.len() > SUBPROTOCOLS_MAX => {
            Err(refused("has more than 16 subprotocols"))
        }
        () if !found.subprotocols.iter().all(subprotocol) => {
            Err(refused("has a subprotocol that no header can carry"))
        }
        () if found
            .credential
            .as_ref()
            .is_some_and(|name| name.len() > NAME_BYTES_MAX) =>
        {
            Err(refused("names a credential of more than 256 bytes"))
        }
        () => Ok(Endpoint {
            id: found.id,
            protocol: match found.protocol {
                streams::Protocol::Websocket => Protocol::Websocket,
                streams::Protocol::Sse => Protocol::Sse,
            },
            url: found.url,
            headers: found.headers,
            credential: found.credential,
            subprotocols: found.subprotocols,
            hello: messages(found.hello)?,
            text_only: found.text_only,
        }),
    }
}

fn messages(found: Vec<streams::Message>) -> Result<Vec<StreamMessage>, Failure> {
    let count = found.len();
    let messages: Vec<StreamMessage> = found.into_iter().map(message).collect();
    let bytes: usize = messages.iter().map(StreamMessage::len).sum();
    if count > MESSAGES_MAX || bytes > MESSAGES_BYTES_MAX {
        return Err(unusable(format!(
            "the plugin wanted {count} messages of {bytes} bytes sent at once, \
             {MESSAGES_MAX} of {MESSAGES_BYTES_MAX} are allowed"
        )));
    }
    Ok(messages)
}

fn message(found: streams::Message) -> StreamMessage {
    match found {
        streams::Message::Text(text) => StreamMessage::Text(text),
        streams::Message::Binary(bytes) => StreamMessage::Binary(bytes),
    }
}

/// A reaction of which every observation keeps the rules; the others were left out.
#[derive(Debug)]
pub(in crate::plugin) struct CheckedReaction {
    pub(in crate::plugin) reaction: Reaction,
    pub(in crate::plugin) dropped: Vec<(String, Invalid)>,
}

/// Checks a reaction as a page is checked.
pub(in crate::plugin) fn reaction(
    found: streams::Reaction,
    gauge: &Gauge,
) -> Result<CheckedReaction, Failure> {
    let (observations, dropped): (Vec<Observation>, _) = observations(found.observations, gauge)?;
    let reaction = Reaction {
        observations,
        refresh: found.refresh,
        send: messages(found.send)?,
    };
    Ok(CheckedReaction { reaction, dropped })
}

pub(in crate::plugin) fn frames_to_guest(frames: Vec<Frame>) -> Vec<streams::Frame> {
    let frame = |frame| match frame {
        Frame::Message(StreamMessage::Text(text)) => {
            streams::Frame::Message(streams::Message::Text(text))
        }
        Frame::Message(StreamMessage::Binary(bytes)) => {
            streams::Frame::Message(streams::Message::Binary(bytes))
        }
        Frame::Connected => streams::Frame::Connected,
        Frame::Dropped(count) => streams::Frame::Dropped(count),
    };
    frames.into_iter().map(frame).collect()
}
