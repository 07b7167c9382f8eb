//! What a guest may call: its log, the clock, and http.

use std::sync::Arc;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use wasmtime_wasi::{WasiCtxView, WasiView};

use super::super::Failure;
use super::super::contract::bindings::weir::plugin as contract;
use super::super::convert;
use super::super::egress::{HttpRequest, HttpResponse, transient};
use super::super::gauge::Mark;
use super::super::guest_log::Level;
use super::GuestState;

impl WasiView for GuestState {
    fn ctx(&mut self) -> WasiCtxView<'_> {
        WasiCtxView {
            ctx: &mut self.wasi,
            table: &mut self.table,
        }
    }
}

impl contract::types::Host for GuestState {}

impl contract::host::Host for GuestState {
    async fn log(&mut self, level: contract::host::Level, message: String) -> wasmtime::Result<()> {
        let level = match level {
            contract::host::Level::Debug => Level::Debug,
            contract::host::Level::Info => Level::Info,
            contract::host::Level::Warn => Level::Warn,
            contract::host::Level::Error => {
                self.stderr.line(&message);
                Level::Error
            }
        };
        self.log.log(level, &message);
        Ok(())
    }

    async fn now(&mut self) -> wasmtime::Result<u64> {
        if let Some(now_ms) = self.egress.tape_now_ms() {
            return Ok(now_ms);
        }
        Ok(u64::try_from(Timestamp::now().as_millisecond()).unwrap_or(0))
    }
}

impl contract::http::Host for GuestState {
    async fn send(
        &mut self,
        request: contract::http::Request,
    ) -> wasmtime::Result<Result<contract::http::Response, contract::types::Failure>> {
        Ok(self.exchange(request, false).await)
    }

    async fn fetch(
        &mut self,
        request: contract::http::Request,
    ) -> wasmtime::Result<Result<contract::http::Response, contract::types::Failure>> {
        Ok(self.exchange(request, true).await)
    }
}

impl GuestState {
    /// Every request of a guest, measured.
    async fn exchange(
        &mut self,
        request: contract::http::Request,
        fetch: bool,
    ) -> Result<contract::http::Response, contract::types::Failure> {
        let (egress, gauge) = (Arc::clone(&self.egress), Arc::clone(&self.gauge));
        let began = Instant::now();
        let left = self.call.requests_until.saturating_duration_since(began);
        if left.is_zero() {
            let failure = transient("timeout", "no time is left in this call".into());
            return Err(convert::failure_to_guest(failure));
        }
        let asks = is_question(&request.method);
        let request = self.http_request(request, left);
        gauge.note_request(began);
        let result = if fetch {
            egress.fetch(request, &mut self.call.requests).await
        } else {
            egress.send(request, &mut self.call.requests).await
        };
        self.call.acted |= !asks && !result.as_ref().is_err_and(Failure::was_before_sending);
        gauge.note_time(Mark::HttpTotal, began.elapsed());
        gauge.note(Mark::Requests, u64::from(self.call.requests));
        if let Ok(response) = &result {
            gauge.note_len(Mark::Response, response.body.len());
        }
        result.map(http_response).map_err(convert::failure_to_guest)
    }

    /// `left`: what may still be waited for in this call.
    fn http_request(&self, request: contract::http::Request, left: Duration) -> HttpRequest {
        let len = request.body.as_ref().map_or(0, Vec::len);
        let timeout = request
            .timeout_ms
            .map_or(left, |ms| left.min(Duration::from_millis(ms.into())));
        let (mark, body_bytes_max) = if self.call.submits {
            let max = self.gauge.limits().http_submit_bytes;
            (Mark::Submit, Some(max))
        } else {
            (Mark::Request, None)
        };
        self.gauge.note_len(mark, len);
        HttpRequest {
            body_bytes_max,
            method: request.method,
            url: request.url,
            headers: request.headers,
            body: request.body,
            credential: request.credential,
            body_is_foreign: self.call.submits,
            timeout: Some(timeout),
        }
    }
}

/// Safe methods (RFC 9110, 9.2.1): they change nothing.
fn is_question(method: &str) -> bool {
    ["GET", "HEAD", "OPTIONS"]
        .iter()
        .any(|safe| method.eq_ignore_ascii_case(safe))
}

fn http_response(response: HttpResponse) -> contract::http::Response {
    contract::http::Response {
        status: response.status,
        headers: response.headers,
        body: response.body,
    }
}
