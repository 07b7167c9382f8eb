//! What a round costs, and what it does not miss for all its thrift.

use comfyui::bindings::exports::weir::plugin::streams::{Frame, Message};
use serde_json::json;
use weir_sdk::bindings::weir::plugin::types::JobState;

use crate::fake::{Fake, item};
use crate::recordings::{Host, source};

const CONFIG: &str = r#"{"url": "http://comfy:8188/"}"#;

fn ids(host: &Host, state: JobState) -> Vec<&str> {
    let mut jobs: Vec<_> = host
        .jobs
        .values()
        .filter(|job| job.state == state)
        .collect();
    jobs.sort_by_key(|job| job.created);
    jobs.iter().map(|job| job.id.as_str()).collect()
}

#[test]
fn a_round_in_which_nothing_changed_is_one_request() {
    let fake = Fake::new(true);
    fake.history
        .borrow_mut()
        .extend((1..200).map(|number| item(number, json!({}))));
    fake.running.borrow_mut().push(item(300, json!({})));
    fake.pending
        .borrow_mut()
        .extend((301..360).map(|number| item(number, json!({}))));
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    assert!(host.round(&mut instance, &fake).unwrap().is_empty());
    fake.asked();
    for _ in 0..3 {
        fake.later(2000);
        assert!(host.round(&mut instance, &fake).unwrap().is_empty());
        assert_eq!(
            fake.asked(),
            ["/api/jobs?sort_by=created_at&sort_order=desc&limit=92"]
        );
    }
    assert_eq!(ids(&host, JobState::Running), ["id-300"]);
    assert_eq!(ids(&host, JobState::Queued).len(), 59);
}

#[test]
fn a_quiet_old_server_is_asked_once_a_round_and_now_and_then_for_its_history() {
    let fake = Fake::new(false);
    fake.history
        .borrow_mut()
        .extend((1..50).map(|number| item(number, json!({}))));
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    host.round(&mut instance, &fake);
    fake.later(40_000);
    host.round(&mut instance, &fake);
    fake.asked();
    let counts: Vec<usize> = (0..4)
        .map(|_| {
            fake.later(2000);
            assert!(host.round(&mut instance, &fake).is_some());
            fake.asked().len()
        })
        .collect();
    assert_eq!(counts, [1, 2, 1, 2]);
}

#[test]
fn a_slow_server_is_followed_over_several_polls() {
    for has_jobs in [true, false] {
        let fake = Fake::new(has_jobs);
        fake.running
            .borrow_mut()
            .extend((1..=40).map(|number| item(number, json!({}))));
        let (mut host, mut instance) = (Host::default(), source(CONFIG));
        host.round(&mut instance, &fake);
        // All of them end at once, and every answer takes three seconds.
        let ended = fake.running.take();
        fake.history.borrow_mut().extend(ended);
        fake.delay.set(3_000);
        let mut polls = 0;
        while ids(&host, JobState::Completed).len() < 40 {
            polls += 1;
            assert!(polls < 30, "{:?}", ids(&host, JobState::Completed));
            let began = fake.now.get();
            host.poll(&mut instance, &fake);
            assert!(fake.asked_at.get() - began < 20_000, "jobs: {has_jobs}");
        }
        // An old server tells all of them in one window of its history.
        assert_eq!(polls > 1, has_jobs, "{polls}");
    }
}

#[test]
fn a_frame_is_a_reason_to_look_for_what_came_and_went_between_two_looks() {
    let fake = Fake::new(false);
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    host.round(&mut instance, &fake);
    fake.later(40_000);
    host.round(&mut instance, &fake);
    // Too short for any poll of the queue, and the history was read a moment ago.
    fake.history.borrow_mut().push(item(7, json!({})));
    fake.later(500);
    host.round(&mut instance, &fake);
    assert_eq!(ids(&host, JobState::Completed), Vec::<&str>::new());
    let status = r#"{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": 0}}}}"#;
    let frame = Frame::Message(Message::Text(status.to_owned()));
    assert!(instance.on_frames(&fake, vec![frame]).unwrap().refresh);
    host.round(&mut instance, &fake);
    assert_eq!(ids(&host, JobState::Completed), ["id-7"]);
}

#[test]
fn first_contact_imports_the_newest_few_in_the_order_in_which_they_ended() {
    for (has_jobs, history, expected) in [
        (true, 100, 100),
        (false, 100, 100),
        (true, 3, 3),
        (false, 3, 3),
        (true, 0, 0),
        (false, 0, 0),
    ] {
        let fake = Fake::new(has_jobs);
        fake.history
            .borrow_mut()
            .extend((1..=150).map(|number| item(number, json!({}))));
        let config = format!(r#"{{"url": "http://comfy:8188", "history": {history}}}"#);
        let (mut host, mut instance) = (Host::default(), source(&config));
        assert!(host.round(&mut instance, &fake).is_some());
        let done = ids(&host, JobState::Completed).len();
        assert_eq!(done, expected, "jobs: {has_jobs}, history: {history}");
        // Afterwards each one that ends is told, however many, and none of the old ones.
        for new in [151, 160, 250] {
            let before = fake.history.borrow().len() as u64;
            fake.history
                .borrow_mut()
                .extend((before + 1..=new).map(|number| item(number, json!({}))));
            fake.later(2000);
            assert!(host.round(&mut instance, &fake).is_some());
            assert_eq!(
                ids(&host, JobState::Completed).len() as u64,
                expected as u64 + new - 150,
                "jobs: {has_jobs}"
            );
        }
    }
}

#[test]
fn old_jobs_at_the_end_of_a_long_queue_are_followed() {
    for has_jobs in [true, false] {
        let fake = Fake::new(has_jobs);
        // Jobs that went to the front: the oldest one is the last to run.
        fake.pending
            .borrow_mut()
            .extend((1..=40).map(|number| item(number, json!({}))));
        let (mut host, mut instance) = (Host::default(), source(CONFIG));
        host.round(&mut instance, &fake);
        // A long time later the newest ones, and many others, are done; the first two still wait; one was deleted.
        let rest = fake.pending.borrow_mut().split_off(2);
        fake.history.borrow_mut().extend(rest.into_iter().skip(1));
        fake.history
            .borrow_mut()
            .extend((1000..1600).map(|number| item(number, json!({}))));
        fake.later(2000);
        let missing = host.round(&mut instance, &fake).unwrap();
        assert_eq!(
            missing
                .iter()
                .map(|job| job.id.as_str())
                .collect::<Vec<_>>(),
            ["id-3"],
            "jobs: {has_jobs}"
        );
        assert_eq!(ids(&host, JobState::Queued), ["id-1", "id-2", "id-3"]);
        assert!(ids(&host, JobState::Completed).len() >= 37);
        // What is gone is not asked for again in every round.
        fake.later(2000);
        fake.asked();
        assert_eq!(host.round(&mut instance, &fake).unwrap().len(), 1);
        assert!(fake.asked().len() <= 2);
    }
}

#[test]
fn a_job_in_both_queue_and_history_is_finished() {
    for has_jobs in [true, false] {
        let fake = Fake::new(has_jobs);
        fake.running.borrow_mut().push(item(7, json!({})));
        fake.history.borrow_mut().push(item(7, json!({})));
        let (mut host, mut instance) = (Host::default(), source(CONFIG));
        host.round(&mut instance, &fake);
        assert_eq!(ids(&host, JobState::Completed), ["id-7"]);
    }
}

#[test]
fn a_server_that_gains_or_loses_the_job_list_is_followed() {
    let old = Fake::new(false);
    old.running.borrow_mut().push(item(7, json!({})));
    let (mut host, mut instance) = (Host::default(), source(CONFIG));
    host.round(&mut instance, &old);
    let new = Fake::new(true);
    new.later(11 * 60 * 1000);
    new.history.borrow_mut().push(item(7, json!({})));
    host.round(&mut instance, &new);
    assert_eq!(ids(&host, JobState::Completed), ["id-7"]);
    let job = host.jobs.values().next().unwrap();
    assert_eq!(
        job.labels,
        [("comfyui_version".to_owned(), "0.33.0".to_owned())]
    );
    old.now.set(new.now.get());
    *old.running.borrow_mut() = vec![item(8, json!({}))];
    assert!(host.round(&mut instance, &old).is_some());
    assert_eq!(ids(&host, JobState::Running), ["id-8"]);
}

#[test]
fn a_workflow_comes_from_the_graph_else_from_the_configuration() {
    let fake = Fake::new(true);
    fake.running.borrow_mut().push(item(
        1,
        json!({"extra_pnginfo": {"workflow": {"id": "wf-1", "nodes": [1]}}}),
    ));
    fake.history.borrow_mut().push(item(
        2,
        json!({"extra_pnginfo": {"workflow": {"id": "wf-2", "nodes": [1]}}}),
    ));
    fake.history
        .borrow_mut()
        .push(item(3, json!({"extra_pnginfo": ["odd"]})));
    let (mut host, mut instance) = (
        Host::default(),
        source(r#"{"url": "http://comfy:8188", "workflow": "studio"}"#),
    );
    host.round(&mut instance, &fake);
    let workflow = |id: &str| {
        host.jobs
            .values()
            .find(|job| job.id == id)
            .unwrap()
            .workflow
            .clone()
    };
    assert_eq!(workflow("id-2").as_deref(), Some("wf-2"));
    assert_eq!(workflow("id-3").as_deref(), Some("studio"));
}

#[test]
fn a_dead_worker_is_told_with_its_evidence_and_a_busy_one_is_not() {
    for has_jobs in [true, false] {
        let fake = Fake::new(has_jobs);
        fake.running.borrow_mut().push(item(300, json!({})));
        fake.pending.borrow_mut().push(item(301, json!({})));
        let mut host = Host::default();
        let round = |host: &mut Host, minutes: u64| {
            fake.later(minutes * 60_000);
            // The time it is counted from is in the cursor.
            host.round(&mut source(CONFIG), &fake);
            std::mem::take(&mut host.notes)
        };
        assert!(round(&mut host, 0).is_empty() && round(&mut host, 29).is_empty());
        let notes = round(&mut host, 1);
        assert_eq!(notes.len(), 1, "{has_jobs}");
        assert!(notes[0].starts_with("no sign of life since "), "{notes:?}");
        // Another one runs: it moves after all.
        *fake.running.borrow_mut() = vec![item(302, json!({}))];
        assert!(round(&mut host, 1).is_empty());
        // Nothing runs, and nobody takes the next one.
        fake.running.borrow_mut().clear();
        assert!(round(&mut host, 1).is_empty() && round(&mut host, 1).is_empty());
        let notes = round(&mut host, 1);
        assert!(
            notes.len() == 1 && notes[0].contains("nothing is begun since "),
            "{notes:?}"
        );

        // A prompt whose frames come is alive, however long it runs.
        fake.running.borrow_mut().push(item(300, json!({})));
        let mut instance = source(CONFIG);
        for value in 0..20 {
            fake.later(4 * 60_000);
            let frame = json!({"type": "progress", "data": {"prompt_id": "id-300", "node": "1", "value": value, "max": 20}});
            let frames = vec![Frame::Message(Message::Text(frame.to_string()))];
            instance.on_frames(&fake, frames).unwrap();
            host.round(&mut instance, &fake);
        }
        assert!(host.notes.is_empty(), "{:?}", host.notes);
    }
}

#[test]
fn the_memory_of_the_devices_is_asked_for_every_15_s_and_no_trouble_with_it_fails_a_poll() {
    for has_jobs in [true, false] {
        let fake = Fake::new(has_jobs);
        let device = |free: u64| json!([{"name": "cpu", "type": "cpu", "index": null, "vram_total": 100, "vram_free": free}]);
        fake.devices.replace(device(40));
        let (mut host, mut instance) = (Host::default(), source(CONFIG));
        let mut asked = |fake: &Fake, host: &mut Host| {
            fake.later(2000);
            assert!(host.round(&mut instance, fake).is_some());
            let asked = fake.asked();
            asked.iter().filter(|path| *path == "/system_stats").count()
        };
        // The look at the version brings it along.
        assert_eq!(asked(&fake, &mut host), 1);
        let told = |host: &mut Host| -> Vec<f64> {
            let gauges = std::mem::take(&mut host.gauges);
            gauges.into_iter().map(|(_, value)| value).collect()
        };
        assert_eq!(told(&mut host), [100.0, 60.0]);
        fake.devices.replace(device(90));
        let looks: usize = (0..15).map(|_| asked(&fake, &mut host)).sum();
        assert_eq!(looks, 1, "in 30 s, {has_jobs}");
        assert_eq!(told(&mut host), [100.0, 10.0]);
        // Neither an odd answer nor none is anything.
        for odd in [json!(null), json!("none"), json!([7, {"vram_total": "x"}])] {
            fake.devices.replace(odd);
            let looks: usize = (0..15).map(|_| asked(&fake, &mut host)).sum();
            assert!(looks > 0);
            assert_eq!(told(&mut host), Vec::<f64>::new());
        }
        fake.is_silent.set(true);
        let looks: usize = (0..15).map(|_| asked(&fake, &mut host)).sum();
        assert!(looks > 0);
        assert_eq!(host.failures, Vec::<String>::new());
        // A clock that was set back does not stop it.
        fake.is_silent.set(false);
        fake.devices.replace(device(0));
        fake.now.set(fake.now.get() - 3_600_000);
        assert_eq!(asked(&fake, &mut host), 1);
        assert_eq!(told(&mut host), [100.0, 100.0]);
    }
}
