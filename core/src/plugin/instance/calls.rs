//! The functions of the contract, each called under its own limits and its result checked.

use weir_model::alert::notification::Notification;
use weir_model::control::Submission;
use weir_model::logs::{Direction, LogPage};
use weir_model::observation::JobRef;
use weir_model::stream::{Endpoint, Frame};

use super::super::contract::bindings::exports::weir::plugin::lifecycle;
use super::super::convert;
use super::super::gauge::Mark;
use super::super::limits::Limits;
use super::super::scrub;
use super::super::status::{CrashReport, Manifest};
use super::super::text::printable;
use super::{Call, CallResult, Instance, missing};

/// Unfinished jobs that a poll is told.
const OPEN_MAX: usize = 5_000;

impl Call {
    pub(super) fn opening(name: &'static str, limits: &Limits) -> Call {
        Call {
            name,
            cpu: (Mark::CpuOpen, limits.cpu_open),
            wall: (Mark::WallOpen, limits.wall_open),
            submits: false,
        }
    }

    fn of(name: &'static str, limits: &Limits) -> Call {
        Call {
            name,
            cpu: (Mark::Cpu, limits.cpu_call),
            wall: (Mark::Wall, limits.wall_call),
            submits: false,
        }
    }

    fn submitting(name: &'static str, limits: &Limits) -> Call {
        Call {
            submits: true,
            ..Call::of(name, limits)
        }
    }
}

impl Instance {
    pub(super) async fn describe(&mut self) -> Result<Manifest, Box<CrashReport>> {
        let call = Call::opening("describe", self.limits());
        let manifest = self
            .guarded(call, async |store, exports| {
                exports.lifecycle()?.call_describe(store).await
            })
            .await?;
        Ok(convert::manifest(manifest))
    }

    pub(super) async fn open_guest(&mut self, context: &lifecycle::Context) -> CallResult<()> {
        let call = Call::opening("open", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                exports.lifecycle()?.call_open(store, context).await
            })
            .await?;
        Ok(result.map_err(|failure| self.failure(failure)))
    }

    pub(in crate::plugin) async fn check(&mut self) -> CallResult<String> {
        let call = Call {
            wall: (Mark::WallCheck, self.limits().wall_check),
            ..Call::of("check", self.limits())
        };
        let result = self
            .guarded(call, async |store, exports| {
                exports.lifecycle()?.call_check(store).await
            })
            .await?;
        Ok(result
            .map(|answer| printable(&self.redacted(&answer), convert::MESSAGE_BYTES_MAX))
            .map_err(|failure| self.failure(failure)))
    }

    pub(in crate::plugin) async fn poll(
        &mut self,
        cursor: Option<&str>,
        open: &[JobRef],
    ) -> CallResult<convert::CheckedPage> {
        let open: Vec<_> = open
            .iter()
            .take(OPEN_MAX)
            .map(convert::job_ref_to_guest)
            .collect();
        let call = Call::of("poll", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                let jobs = exports.jobs.as_ref().ok_or_else(missing)?;
                jobs.call_poll(store, cursor, &open).await
            })
            .await?;
        Ok(match result {
            Ok(page) => convert::page(page, &self.surroundings.gauge).map(|mut checked| {
                scrub::page(self.surroundings.log.redactor(), &mut checked.page);
                checked
            }),
            Err(failure) => Err(self.failure(failure)),
        })
    }

    pub(in crate::plugin) async fn deliver(
        &mut self,
        notification: &Notification,
        prior: Option<&str>,
    ) -> CallResult<Option<String>> {
        let notification = convert::notification_to_guest(&scrub::notification(notification));
        let call = Call::of("deliver", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                let alerts = exports.alerts.as_ref().ok_or_else(missing)?;
                alerts.call_deliver(store, &notification, prior).await
            })
            .await?;
        Ok(result
            .map(|mut receipt| {
                scrub::optional(self.surroundings.log.redactor(), &mut receipt);
                receipt
            })
            .map_err(|failure| self.failure(failure)))
    }

    pub(in crate::plugin) async fn endpoints(&mut self) -> CallResult<Vec<Endpoint>> {
        let call = Call::of("endpoints", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                let streams = exports.streams.as_ref().ok_or_else(missing)?;
                streams.call_endpoints(store).await
            })
            .await?;
        Ok(match result {
            Ok(endpoints) => convert::endpoints(endpoints),
            Err(failure) => Err(self.failure(failure)),
        })
    }

    pub(in crate::plugin) async fn on_frames(
        &mut self,
        endpoint: &str,
        mut frames: Vec<Frame>,
    ) -> CallResult<convert::CheckedReaction> {
        scrub::frames(self.surroundings.log.redactor(), &mut frames);
        let frames = convert::frames_to_guest(frames);
        let call = Call {
            wall: (Mark::WallFrames, self.limits().wall_frames),
            ..Call::of("on-frames", self.limits())
        };
        let result = self
            .guarded(call, async |store, exports| {
                let streams = exports.streams.as_ref().ok_or_else(missing)?;
                streams.call_on_frames(store, endpoint, &frames).await
            })
            .await?;
        Ok(match result {
            Ok(reaction) => {
                convert::reaction(reaction, &self.surroundings.gauge).map(|mut checked| {
                    let found = &mut checked.reaction.observations;
                    scrub::observations(self.surroundings.log.redactor(), found);
                    checked
                })
            }
            Err(failure) => Err(self.failure(failure)),
        })
    }

    pub(in crate::plugin) async fn cancel(&mut self, job: &JobRef) -> CallResult<()> {
        let job = convert::job_ref_to_guest(job);
        let call = Call::of("cancel", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                let control = exports.control.as_ref().ok_or_else(missing)?;
                control.call_cancel(store, &job).await
            })
            .await?;
        Ok(result.map_err(|failure| self.failure(failure)))
    }

    pub(in crate::plugin) async fn retry(
        &mut self,
        key: &str,
        job: &JobRef,
    ) -> CallResult<Submission> {
        let job = convert::job_ref_to_guest(job);
        let call = Call::submitting("retry", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                let control = exports.control.as_ref().ok_or_else(missing)?;
                control.call_retry(store, key, &job).await
            })
            .await?;
        Ok(match result {
            Ok(submission) => {
                convert::submission(submission, &self.surroundings.gauge).map(|mut answer| {
                    self.surroundings
                        .log
                        .redactor()
                        .clean_answer(&mut answer.body);
                    answer
                })
            }
            Err(failure) => Err(self.failure(failure)),
        })
    }

    pub(in crate::plugin) async fn submit(
        &mut self,
        key: &str,
        content_type: &str,
        body: &[u8],
    ) -> CallResult<Submission> {
        let call = Call::submitting("submit", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                let control = exports.control.as_ref().ok_or_else(missing)?;
                control.call_submit(store, key, content_type, body).await
            })
            .await?;
        Ok(match result {
            Ok(submission) => {
                convert::submission(submission, &self.surroundings.gauge).map(|mut answer| {
                    self.surroundings
                        .log
                        .redactor()
                        .clean_answer(&mut answer.body);
                    answer
                })
            }
            Err(failure) => Err(self.failure(failure)),
        })
    }

    pub(in crate::plugin) async fn read_logs(
        &mut self,
        job: &JobRef,
        direction: Direction,
        cursor: Option<&str>,
    ) -> CallResult<LogPage> {
        let (job, direction) = (
            convert::job_ref_to_guest(job),
            convert::direction_to_guest(direction),
        );
        let call = Call::of("read", self.limits());
        let result = self
            .guarded(call, async |store, exports| {
                let logs = exports.logs.as_ref().ok_or_else(missing)?;
                logs.call_read(store, &job, direction, cursor).await
            })
            .await?;
        Ok(match result {
            Ok(page) => {
                let (gauge, log) = (&self.surroundings.gauge, &self.surroundings.log);
                convert::log_page(page, gauge, log.redactor())
            }
            Err(failure) => Err(self.failure(failure)),
        })
    }
}
