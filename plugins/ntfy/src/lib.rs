//! Receiver `ntfy`: one push message per notification on an ntfy topic.

pub mod message;

weir_handler::export!(message::Ntfy);
