//! Receiver `webhook`: Alertmanager's webhook payload, version 4, posted to a URL.

pub mod payload;

weir_handler::export!(payload::Webhook);
