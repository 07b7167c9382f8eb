//! What streams bring to the source actor: observations between polls, and polls brought forward.

use super::{SourceActor, deliver};
use crate::workflow::NotRecorded;
use actix::{
    ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};
use weir_model::observation::{JobProgress, JobRef, Observation};

/// Between the beginnings of two polls, however often a stream asks for one.
const REFRESH_MIN: Duration = Duration::from_millis(250);

/// A stream saw that something changed: poll soon. Many of these are one poll.
#[derive(Message)]
#[rtype(result = "()")]
pub struct Refresh {
    /// The stream was connected just now: the far side is there, and what it said before was missed.
    pub connected: bool,
}

/// What a stream's frames led to. Answered when what is not droppable is on disk.
#[derive(Message)]
#[rtype(result = "Result<(), NotRecorded>")]
pub struct StreamObserved(pub Vec<Observation>);

/// When polls were and will be, as far as a stream may bring them forward.
#[derive(Default)]
pub(super) struct Pace {
    /// The newest poll began.
    pub(super) begun: Option<Instant>,
    /// The next one is planned for.
    pub(super) due: Option<Instant>,
    /// The far side, or the plugin's host, said when it wants to be asked again.
    pub(super) not_before: Option<Instant>,
    /// A stream asked for a poll while one was under way that may have looked too early.
    pub(super) again: bool,
}

impl Pace {
    /// How long until a poll that a stream asked for.
    pub(super) fn soonest(&self, now: Instant) -> Duration {
        let begun = self.begun.map(|begun| begun + REFRESH_MIN);
        let soonest = begun.max(self.not_before);
        soonest.map_or(Duration::ZERO, |at| at.saturating_duration_since(now))
    }
}

impl Handler<Refresh> for SourceActor {
    type Result = ();

    fn handle(&mut self, refresh: Refresh, ctx: &mut Self::Context) {
        if self.busy {
            self.pace.again = true;
            return;
        }
        // A source out of reach is asked again when its backoff says so, unless it was just reached.
        if self.failures > 0 && !refresh.connected {
            return;
        }
        let now = Instant::now();
        let wait = self.pace.soonest(now);
        if self.pace.due.is_none_or(|due| now + wait < due) {
            self.schedule(wait, ctx);
        }
    }
}

impl Handler<StreamObserved> for SourceActor {
    type Result = ResponseActFuture<Self, Result<(), NotRecorded>>;

    fn handle(&mut self, observed: StreamObserved, _: &mut Self::Context) -> Self::Result {
        self.keep_gauges(&observed.0);
        let (mut firm, mut progress) = (Vec::new(), Vec::new());
        // Before the first round nothing is known, and the round tells it all.
        let told = observed.0.into_iter().filter(|_| !self.first_round);
        for observation in told {
            match observation {
                Observation::Progress(report) => progress.push(report),
                other => firm.push(other),
            }
        }
        let delivered = self.delivered(self.rounds.changed(&firm));
        Box::pin(delivered.into_actor(self).then(
            move |result, actor: &mut Self, ctx: &mut Context<Self>| {
                let rest: ResponseActFuture<Self, Result<(), NotRecorded>> = match result {
                    Err(error) => Box::pin(actix::fut::ready(Err(error))),
                    Ok(()) => {
                        actor.rounds.acknowledge_aside(&firm, actor.clock.now());
                        if firm.iter().any(|o| matches!(o, Observation::Gone(_))) {
                            // Judged with the next round.
                            ctx.notify(Refresh { connected: false });
                        }
                        // A job that came together with its progress is known from here on.
                        let reports = actor.reports(progress);
                        Box::pin(actor.delivered(reports).into_actor(actor))
                    }
                };
                rest
            },
        ))
    }
}

impl SourceActor {
    fn delivered(
        &self,
        observations: Vec<Observation>,
    ) -> impl Future<Output = Result<(), NotRecorded>> + use<> {
        let routed = observations.into_iter().filter_map(|o| self.routed(o));
        let (routed, registry) = (routed.collect(), self.registry.clone());
        async move { deliver(&registry, routed).await }
    }

    /// Progress as far as it is about something: that of a job that is not open is of no use, and the last word on a
    /// step is enough.
    fn reports(&self, progress: Vec<JobProgress>) -> Vec<Observation> {
        let mut newest: HashMap<(JobRef, Option<String>), usize> = HashMap::new();
        let mut reports: Vec<Observation> = Vec::with_capacity(progress.len());
        for mut progress in progress {
            let Some(meant) = self.rounds.meant(&progress.id, progress.run.as_deref()) else {
                continue;
            };
            progress.run.clone_from(&meant.run);
            match newest.entry((meant, progress.step.clone())) {
                Entry::Occupied(known) => reports[*known.get()] = Observation::Progress(progress),
                Entry::Vacant(place) => {
                    place.insert(reports.len());
                    reports.push(Observation::Progress(progress));
                }
            }
        }
        reports
    }
}
