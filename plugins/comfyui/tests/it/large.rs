//! Long queues of an old server, where every prompt carries its whole UI graph.

use serde_json::json;
use weir_sdk::Far;
use weir_sdk::bindings::weir::plugin::types::JobState;

use crate::fake::{Fake, item};
use crate::recordings::{Host, source};

const CONFIG: &str = r#"{"url": "http://comfy:8188"}"#;

/// 300 prompts of 150 kB: 45 MB.
fn long_queue() -> Fake {
    let fake = Fake::new(false);
    let graph =
        json!({"extra_pnginfo": {"workflow": {"nodes": "x".repeat(150_000), "id": "wf-big"}}});
    fake.running.borrow_mut().push(item(1, graph.clone()));
    fake.pending
        .borrow_mut()
        .extend((2..=300).map(|number| item(number, graph.clone())));
    fake
}

#[test]
fn a_queue_of_300_prompts_of_150_kb_is_read_and_then_left_alone() {
    let fake = long_queue();
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    assert!(host.round(&mut instance, &fake).unwrap().is_empty());
    assert_eq!(host.jobs.len(), 300);
    assert!(
        host.jobs
            .values()
            .all(|job| job.workflow.as_deref() == Some("wf-big") && job.steps.len() == 2)
    );
    assert!(
        format!("{:?}", host.jobs).len() < 400_000,
        "the graph is not carried along"
    );
    fake.asked();
    fake.later(2000);
    host.round(&mut instance, &fake);
    assert_eq!(fake.asked(), ["/prompt"]);
    let done = fake.running.borrow_mut().pop().unwrap();
    fake.history.borrow_mut().push(done);
    fake.later(2000);
    assert!(host.round(&mut instance, &fake).unwrap().is_empty());
    assert_eq!(
        host.jobs
            .values()
            .filter(|job| job.state == JobState::Completed)
            .count(),
        1
    );
}

#[test]
fn a_queue_beyond_the_limit_is_counted_and_known_jobs_are_followed() {
    let fake = long_queue();
    let rest = fake.pending.borrow_mut().split_off(10);
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    host.round(&mut instance, &fake).unwrap();
    fake.pending.borrow_mut().extend(rest);
    fake.limit.set(8 << 20);
    fake.later(20_000);
    assert!(host.round(&mut instance, &fake).is_none());
    assert!(host.failures.is_empty(), "{:?}", host.failures);
    assert!(fake.log.borrow()[0].starts_with("queue_unreadable: the queue of 300 prompts"));
    // What it knows is told when it ends; one that is not in the history may well wait.
    let done = fake.running.borrow_mut().pop().unwrap();
    fake.history.borrow_mut().push(done);
    fake.later(2000);
    fake.asked();
    assert!(host.round(&mut instance, &fake).is_none());
    assert!(!fake.asked().contains(&"/queue".to_owned()));
    let done: Vec<_> = host
        .jobs
        .values()
        .filter(|job| job.state == JobState::Completed)
        .collect();
    assert_eq!(done.len(), 1);
    assert_eq!(done[0].detail, r#"{"number":1,"queue_unreadable":true}"#);
    for _ in 0..40 {
        fake.later(2000);
        host.round(&mut instance, &fake);
    }
    assert_eq!(fake.log.borrow().len(), 1, "said once");
    // Shorter again: read again, and said.
    fake.pending.borrow_mut().truncate(20);
    fake.later(2000);
    assert!(host.round(&mut instance, &fake).is_some());
    assert_eq!(fake.log.borrow()[1], "the queue can be read again");
}

#[test]
fn a_history_beyond_the_limit_is_imported_as_far_as_it_goes() {
    let fake = Fake::new(false);
    fake.history
        .borrow_mut()
        .extend((1..=100).map(|number| item(number, json!({"big": "x".repeat(150_000)}))));
    fake.limit.set(8 << 20);
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    assert!(host.round(&mut instance, &fake).is_some());
    assert_eq!(host.jobs.len(), 50);
    assert!(fake.now() > 0);
}
