//! What control adds to a source: a look out of turn, jobs that were submitted, and jobs that shall leave.

use super::{PollSource, Polled, SourceActor, deliver};
use crate::feed::PollFailed;
use crate::workflow::Seen;
use actix::{
    ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture,
};
use weir_model::observation::{Coverage, Job, JobRef, JobState, Observation, Page};
use weir_model::workflow::Contact;

/// Announced jobs that may wait for the end of a round; more are refused, and announced again later.
const ANNOUNCED_MAX: usize = 256;

/// Poll now, unless a poll is under way or the provider is out of reach: its backoff is kept.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Look;

/// A job that the provider took and no poll has shown: recorded at the end of the next round that does not show it.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Announce(pub Job);

/// The provider took a cancel of this job: that it leaves its queue is what was asked for. False ends that.
#[derive(Message)]
#[rtype(result = "()")]
pub struct ExpectToLeave(pub JobRef, pub bool);

/// Observed: it waited, was asked to be cancelled, and left the queue without running.
pub(super) fn left_as_asked(job: &JobRef) -> Seen {
    let reason = "cancelled through weir: it left the provider's queue without running";
    let view = Job {
        error: Some(reason.to_owned()),
        ..bare(job, JobState::Cancelled)
    };
    Seen::Job(Box::new(view), Contact::default())
}

/// A view that says no more than that there is such a job.
pub(crate) fn bare(job: &JobRef, state: JobState) -> Job {
    Job {
        id: job.id.clone(),
        run: job.run.clone(),
        workflow: None,
        state,
        name: None,
        position: None,
        created: None,
        started: None,
        finished: None,
        steps: Vec::new(),
        error: None,
        labels: Vec::new(),
        detail: "{}".to_owned(),
    }
}

impl SourceActor {
    /// At the end of a round, adds what was submitted and not shown. What was shown needs no announcement any more.
    pub(super) fn join_announced(&mut self, page: &mut Page) {
        if page.coverage == Coverage::More {
            return;
        }
        for job in std::mem::take(&mut self.announced) {
            let reference = JobRef {
                id: job.id.clone(),
                run: job.run.clone(),
            };
            let shown = page.observations.iter().any(|observation| {
                matches!(observation, Observation::Job(shown) if shown.id == job.id
                    && (job.run.is_none() || shown.run == job.run))
            });
            if !shown && !self.rounds.knows(&reference) {
                page.observations.push(Observation::Job(Box::new(job)));
            }
        }
    }

    /// The poll failed; what was submitted is recorded all the same.
    pub(super) fn failed_with_announced(
        &mut self,
        failed: PollFailed,
    ) -> ResponseActFuture<Self, Polled> {
        let mut page = Page {
            observations: Vec::new(),
            cursor: None,
            coverage: Coverage::Partial,
        };
        self.join_announced(&mut page);
        if page.observations.is_empty() {
            return Box::pin(actix::fut::ready(Polled::Failed(failed)));
        }
        let routed = self.route(&page);
        let registry = self.registry.clone();
        let delivered = async move { deliver(&registry, routed).await };
        Box::pin(delivered.into_actor(self).map(move |result, actor, _| {
            if result.is_ok() {
                let now = actor.clock.now();
                actor.rounds.acknowledge(&page, now);
            }
            Polled::Failed(failed)
        }))
    }
}

impl Handler<Look> for SourceActor {
    type Result = ();

    fn handle(&mut self, _: Look, ctx: &mut Context<Self>) {
        if !self.busy && self.failures == 0 {
            ctx.notify(PollSource);
        }
    }
}

impl Handler<Announce> for SourceActor {
    type Result = ();

    fn handle(&mut self, Announce(job): Announce, ctx: &mut Context<Self>) {
        let known = self
            .announced
            .iter()
            .any(|a| a.id == job.id && a.run == job.run);
        if !known && self.announced.len() < ANNOUNCED_MAX {
            self.announced.push(job);
        }
        self.handle(Look, ctx);
    }
}

impl Handler<ExpectToLeave> for SourceActor {
    type Result = ();

    fn handle(&mut self, ExpectToLeave(job, leaving): ExpectToLeave, _: &mut Context<Self>) {
        self.rounds.expect_to_leave(&job, leaving);
    }
}
