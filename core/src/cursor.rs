//! What every consumer of the journal shares: the order to read on, and who gives it.

use actix::{Actor, AsyncContext, Context, Handler, Message};
use std::time::Duration;
use tokio::sync::watch;
use weir_model::id::Seq;

/// What is committed within this time of a wake-up is read in the same go.
const COALESCE: Duration = Duration::from_millis(2);

/// Self-message of a consumer: read on from your cursor.
#[derive(Message)]
#[rtype(result = "()")]
pub(crate) struct CatchUp;

/// Tells the consumer now, and again each time the head moves.
pub(crate) fn follow<A>(mut head: watch::Receiver<Seq>, ctx: &mut Context<A>)
where
    A: Actor<Context = Context<A>> + Handler<CatchUp>,
{
    ctx.notify(CatchUp);
    let this = ctx.address().downgrade();
    ctx.spawn(actix::fut::wrap_future(async move {
        while head.changed().await.is_ok() {
            let Some(addr) = this.upgrade() else { return };
            addr.do_send(CatchUp);
            tokio::time::sleep(COALESCE).await;
        }
    }));
}
