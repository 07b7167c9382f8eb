//! What passes between weir and a guest, cleaned: secrets out of what it returned, requests for secrets out of what it is given.

use weir_model::alert::notification::{Notification, NotifiedAlert};
use weir_model::observation::{Gauge, Job, JobProgress, JobRef, Observation, Page};
use weir_model::stream::{Frame, StreamMessage};

use super::credential::Redactor;
use super::egress::defused;

/// A notification whose texts, which came from anywhere, ask for no secret when a handler puts them into its request.
pub(super) fn notification(notification: &Notification) -> Notification {
    let mut clean = notification.clone();
    let Notification {
        id: _,
        key: _,
        severity: _,
        title,
        text,
        test: _,
        receiver: _,
        status: _,
        group_labels,
        common_labels,
        common_annotations,
        alerts,
        truncated: _,
        external_url,
    } = &mut clean;
    for text in [title, text] {
        *text = defused(text);
    }
    for labels in [group_labels, common_labels, common_annotations] {
        defuse_labels(labels);
    }
    *external_url = external_url.as_deref().map(defused);
    for alert in alerts {
        defuse_alert(alert);
    }
    clean
}

/// What a far side repeats of a long secret does not reach the guest, as in its answers.
pub(super) fn frames(redactor: &Redactor, frames: &mut [Frame]) {
    for frame in frames {
        match frame {
            Frame::Message(StreamMessage::Text(text)) => redactor.clean_header(text),
            Frame::Message(StreamMessage::Binary(bytes)) => redactor.clean_answer(bytes),
            Frame::Connected | Frame::Dropped(_) => {}
        }
    }
}

fn defuse_alert(alert: &mut NotifiedAlert) {
    for text in [&mut alert.title, &mut alert.body] {
        *text = defused(text);
    }
    for labels in [&mut alert.labels, &mut alert.annotations] {
        defuse_labels(labels);
    }
    for execution in &mut alert.executions {
        *execution = defused(execution);
    }
    alert.url = alert.url.as_deref().map(defused);
}

fn defuse_labels(labels: &mut [(String, String)]) {
    for (name, value) in labels {
        *name = defused(name);
        *value = defused(value);
    }
}

/// Secrets that the far side repeated, taken out of a page: weir stores and shows its texts.
pub(super) fn page(redactor: &Redactor, page: &mut Page) {
    if redactor.is_idle() {
        return;
    }
    observations(redactor, &mut page.observations);
    optional(redactor, &mut page.cursor);
}

pub(super) fn observations(redactor: &Redactor, observations: &mut Vec<Observation>) {
    if redactor.is_idle() {
        return;
    }
    observations.retain_mut(|observation| {
        match observation {
            Observation::Job(found) => job(redactor, found),
            Observation::Progress(found) => progress(redactor, found),
            Observation::Gone(found) => job_ref(redactor, found),
            Observation::Gauge(found) => return gauge(redactor, found),
        }
        true
    });
}

pub(super) fn optional(redactor: &Redactor, text: &mut Option<String>) {
    if let Some(text) = text {
        redactor.clean(text);
    }
}

pub(super) fn job_ref(redactor: &Redactor, job_ref: &mut JobRef) {
    redactor.clean(&mut job_ref.id);
    optional(redactor, &mut job_ref.run);
}

/// Every text of a job, named one by one, so that a new one is not forgotten.
fn job(redactor: &Redactor, job: &mut Job) {
    let Job {
        id,
        run,
        workflow,
        state: _,
        name,
        position: _,
        created: _,
        started: _,
        finished: _,
        steps,
        error,
        labels,
        detail,
    } = job;
    for text in [id, detail] {
        redactor.clean(text);
    }
    for text in [run, workflow, name, error] {
        optional(redactor, text);
    }
    for (name, value) in labels {
        redactor.clean(name);
        redactor.clean(value);
    }
    for step in steps {
        redactor.clean(&mut step.id);
        redactor.clean(&mut step.name);
        optional(redactor, &mut step.error);
    }
}

fn progress(redactor: &Redactor, progress: &mut JobProgress) {
    redactor.clean(&mut progress.id);
    for text in [&mut progress.run, &mut progress.step, &mut progress.note] {
        optional(redactor, text);
    }
}

/// False: without the secret it is no gauge any more.
fn gauge(redactor: &Redactor, gauge: &mut Gauge) -> bool {
    let cleaned = |text: &str| {
        let mut text = text.to_owned();
        redactor.clean(&mut text);
        text
    };
    let labels = gauge.labels().iter();
    let labels = labels.map(|(name, value)| (cleaned(name), cleaned(value)));
    let clean = Gauge::new(cleaned(gauge.name()), labels.collect(), gauge.value());
    clean.map(|clean| *gauge = clean).is_ok()
}

#[cfg(test)]
mod tests {
    use weir_model::observation::{Coverage, JobState, JobStep, StepState};

    use super::*;

    fn told_gauge(name: &str, label: &str) -> Observation {
        let labels = vec![(label.to_owned(), "x cAnArY \"y\"".to_owned())];
        let gauge = Gauge::new(name.to_owned(), labels, 1.0);
        Observation::Gauge(gauge.expect("it keeps the rules"))
    }

    #[test]
    fn a_gauge_whose_name_is_a_secret_is_left_out() {
        let named = Redactor::new(vec![("n".into(), "secret_name".into())]);
        for (name, label) in [("secret_name_bytes", "a"), ("x_bytes", "secret_name")] {
            let mut alone = vec![told_gauge(name, label)];
            observations(&named, &mut alone);
            assert_eq!(alone, [], "a name cannot be cleaned and stay a name");
        }
    }

    #[test]
    fn no_text_of_a_page_keeps_a_secret() {
        let canary = || "x cAnArY \"y\"".to_owned();
        let step = JobStep {
            id: canary(),
            name: canary(),
            state: StepState::Running,
            started: None,
            finished: None,
            done: None,
            total: None,
            error: Some(canary()),
        };
        let found = Job {
            id: canary(),
            run: Some(canary()),
            workflow: Some(canary()),
            state: JobState::Running,
            name: Some(canary()),
            position: None,
            created: None,
            started: None,
            finished: None,
            steps: vec![step],
            error: Some(canary()),
            labels: vec![(canary(), canary())],
            detail: serde_json::json!({ "a": canary() }).to_string(),
        };
        let told = JobProgress {
            id: canary(),
            run: Some(canary()),
            step: Some(canary()),
            done: 1.0,
            total: None,
            note: Some(canary()),
        };
        let gone = JobRef {
            id: canary(),
            run: Some(canary()),
        };
        let mut seen = Page {
            observations: vec![
                Observation::Job(Box::new(found)),
                Observation::Progress(told),
                Observation::Gone(gone),
                told_gauge("x_bytes", "a"),
            ],
            cursor: Some(canary()),
            coverage: Coverage::Complete,
        };
        let before = format!("{seen:?}").matches("cAnArY").count();
        let redactor = Redactor::new(vec![("a \"name\"".into(), "cAnArY \"y\"".into())]);
        page(&Redactor::default(), &mut seen);
        assert_eq!(format!("{seen:?}").matches("cAnArY").count(), before);
        page(&redactor, &mut seen);
        let shown = format!("{seen:?}");
        assert!(!shown.contains("cAnArY"), "{shown}");
        assert_eq!(shown.matches("[secret a _name_]").count(), before);
        let Observation::Job(found) = &seen.observations[0] else {
            panic!("{shown}");
        };
        assert!(serde_json::from_str::<serde_json::Value>(&found.detail).is_ok());
    }
}
