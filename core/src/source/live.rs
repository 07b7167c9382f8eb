//! What streams bring to the source actor: observations between polls, and polls brought forward.

use super::{SourceActor, deliver};
use crate::workflow::NotRecorded;
use actix::{
    ActorFutureExt, AsyncContext, Context, Handler, Message, ResponseActFuture, WrapFuture,
};
use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::time::{Duration, Instant};
use weir_model::observation::{JobRef, Observation};

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
        let told = self.told(observed.0);
        let changed = self.rounds.changed(&told);
        let routed = changed.into_iter().filter_map(|o| self.routed(o)).collect();
        let registry = self.registry.clone();
        let delivered = async move { deliver(&registry, routed).await };
        Box::pin(delivered.into_actor(self).map(
            move |result, actor: &mut Self, ctx: &mut Context<Self>| {
                result?;
                actor.rounds.acknowledge_aside(&told, actor.clock.now());
                if told.iter().any(|o| matches!(o, Observation::Gone(_))) {
                    // Judged with the next round.
                    ctx.notify(Refresh { connected: false });
                }
                Ok(())
            },
        ))
    }
}

impl SourceActor {
    /// What a stream told, as far as it is about something: before the first round nothing is known, and the round
    /// tells it all; progress of a job that is not open is of no use.
    fn told(&self, observations: Vec<Observation>) -> Vec<Observation> {
        if self.first_round {
            return Vec::new();
        }
        let mut newest: HashMap<(JobRef, Option<String>), usize> = HashMap::new();
        let mut told: Vec<Observation> = Vec::with_capacity(observations.len());
        for observation in observations {
            let Observation::Progress(mut progress) = observation else {
                told.push(observation);
                continue;
            };
            let Some(meant) = self.rounds.meant(&progress.id, progress.run.as_deref()) else {
                continue;
            };
            progress.run.clone_from(&meant.run);
            // The last word on a step is enough.
            match newest.entry((meant, progress.step.clone())) {
                Entry::Occupied(known) => told[*known.get()] = Observation::Progress(progress),
                Entry::Vacant(place) => {
                    place.insert(told.len());
                    told.push(Observation::Progress(progress));
                }
            }
        }
        told
    }
}
