//! Every kind of event survives the store; the codes of kinds are frozen.

use super::*;
use proptest::prelude::*;
use weir_model::alert::notification::Severity;
use weir_model::event::{ControlEvent, DeclaredStep};
use weir_model::id::RunKey;
use weir_model::request::{Action, RequestState};

fn time() -> impl Strategy<Value = Timestamp> {
    (0i64..4_000_000_000_000_000).prop_map(|micros| Timestamp::from_microsecond(micros).unwrap())
}

fn maybe_time() -> impl Strategy<Value = Option<Timestamp>> {
    proptest::option::of(time())
}

fn text() -> impl Strategy<Value = String> {
    "\\PC{0,12}"
}

fn outcome() -> impl Strategy<Value = Outcome> {
    (maybe_time(), maybe_time(), proptest::option::of(text())).prop_map(
        |(started_at, completed_at, error)| Outcome {
            started_at,
            completed_at,
            error,
        },
    )
}

fn status() -> impl Strategy<Value = Status> {
    proptest::sample::select(Status::ALL.to_vec())
}

fn final_status() -> impl Strategy<Value = Status> {
    status().prop_filter("final", |status| status.is_final())
}

fn final_step() -> impl Strategy<Value = StepStatus> {
    proptest::sample::select(StepStatus::ALL.to_vec())
        .prop_filter("final", |status| status.is_final())
}

fn execution_event() -> impl Strategy<Value = ExecutionEvent> {
    use ExecutionEvent as E;
    let plain = [
        E::Queued,
        E::Initializing,
        E::Completing,
        E::Paused,
        E::Cancelling,
        E::Pending,
        E::Unwatched,
        E::Watched,
    ];
    let maybe_text = || proptest::option::of(text());
    prop_oneof![
        proptest::sample::select(plain.to_vec()),
        (maybe_time(), 1u32..5).prop_map(|(started_at, attempt)| E::Started {
            started_at,
            attempt
        }),
        (final_status(), any::<bool>(), outcome()).prop_map(|(status, late, outcome)| {
            E::Finished {
                status,
                late,
                outcome,
            }
        }),
        text().prop_map(|reason| E::Lost { reason }),
        status().prop_map(|status| E::Found { status }),
        (status(), status(), outcome()).prop_map(|(from, to, outcome)| E::Corrected {
            from,
            to,
            outcome
        }),
        (any::<u32>(), maybe_time()).prop_map(|(step, at)| E::StepStarted { step, at }),
        (
            any::<u32>(),
            final_step(),
            maybe_time(),
            maybe_time(),
            maybe_text()
        )
            .prop_map(|(step, status, started_at, at, error)| E::StepFinished {
                step,
                status,
                started_at,
                at,
                error
            }),
    ]
}

fn source_event() -> impl Strategy<Value = SourceEvent> {
    prop_oneof![
        text().prop_map(|error| SourceEvent::Stale { error }),
        Just(SourceEvent::Recovered),
        (any::<u32>(), any::<u32>()).prop_map(|(missing, of)| SourceEvent::Suspect { missing, of }),
        Just(SourceEvent::SuspicionCleared),
        Just(SourceEvent::Removed),
        Just(SourceEvent::Returned),
    ]
}

fn alert_event() -> impl Strategy<Value = AlertEvent> {
    prop_oneof![
        text().prop_map(|title| AlertEvent::Fired {
            severity: Severity::Critical,
            title
        }),
        (any::<u32>(), text()).prop_map(|(count, title)| AlertEvent::Updated { count, title }),
        text().prop_map(|reason| AlertEvent::Resolved { reason }),
        text().prop_map(|by| AlertEvent::Acknowledged { by }),
    ]
}

/// Values that JSON keeps to the last bit; a measured one may lose it.
fn percent() -> impl Strategy<Value = f64> {
    (0u16..400).prop_map(|quarters| f64::from(quarters) / 4.0)
}

fn system_event() -> impl Strategy<Value = SystemEvent> {
    use SystemEvent as S;
    prop_oneof![
        text().prop_map(|version| S::Started { version }),
        Just(S::Stopped),
        (time(), time(), text()).prop_map(|(from, to, reason)| S::Blind { from, to, reason }),
        (text(), text()).prop_map(|(subject, message)| S::Trouble { subject, message }),
        text().prop_map(|subject| S::TroubleCleared { subject }),
        (text(), percent()).prop_map(|(resource, value)| S::ResourceOver {
            resource,
            value,
            limit: 85.0
        }),
        (text(), percent()).prop_map(|(resource, value)| S::ResourceRecovered {
            resource,
            value,
            limit: 85.0
        }),
        Just(S::Reloaded),
        text().prop_map(|message| S::ReloadFailed { message }),
        (text(), time()).prop_map(|(what, until)| S::Muted { what, until }),
        text().prop_map(|what| S::Unmuted { what }),
    ]
}

fn control_event() -> impl Strategy<Value = ControlEvent> {
    let action = || proptest::sample::select(Action::ALL.to_vec());
    let about = || (any::<u128>(), any::<i64>(), action());
    let state = proptest::sample::select(RequestState::ALL.to_vec());
    prop_oneof![
        about().prop_map(|(request, source, action)| ControlEvent::Requested {
            request: uuid::Uuid::from_u128(request),
            source: SourceId(source),
            action,
        }),
        (about(), proptest::option::of(text())).prop_map(|((request, source, action), note)| {
            ControlEvent::Asked {
                request: uuid::Uuid::from_u128(request),
                source: SourceId(source),
                action,
                note,
            }
        }),
        (about(), state, text()).prop_map(|((request, source, action), state, reason)| {
            ControlEvent::Settled {
                request: uuid::Uuid::from_u128(request),
                source: SourceId(source),
                action,
                state,
                reason,
            }
        }),
    ]
}

fn event() -> impl Strategy<Value = Event> {
    prop_oneof![
        (proptest::option::of(any::<i64>()), control_event())
            .prop_map(|(seq, event)| Event::Control(seq.map(ExecutionSeq), event)),
        (any::<i64>(), execution_event())
            .prop_map(|(seq, event)| Event::Execution(ExecutionSeq(seq), event)),
        (any::<i64>(), source_event())
            .prop_map(|(source, event)| Event::Source(SourceId(source), event)),
        (text(), alert_event()).prop_map(|(fingerprint, event)| Event::Alert(fingerprint, event)),
        system_event().prop_map(Event::System),
    ]
}

proptest! {
    #[test]
    fn an_event_is_decoded_as_it_was_encoded(event in event()) {
        let encoded = encode(&event).unwrap();
        let decoded = decode(
            i64::from(encoded.code),
            i64::from(PAYLOAD_VERSION),
            encoded.execution,
            encoded.step,
            encoded.payload.as_deref(),
        );
        prop_assert_eq!(decoded.unwrap(), Decoded::Whole(event.clone()));
        prop_assert_eq!(kind_of(encoded.code), Some(event.kind()));
    }

    #[test]
    fn no_row_makes_the_decoder_panic(
        code in -5i64..300, version in 0i64..3, step in any::<Option<u32>>(), payload in proptest::option::of(text())
    ) {
        let _ = decode(code, version, Some(ExecutionSeq(1)), step, payload.as_deref());
    }
}

#[test]
fn what_was_created_and_declared_is_left_to_the_projections() {
    let created = ExecutionEvent::Created {
        uuid: uuid::Uuid::nil(),
        key: RunKey {
            source: SourceId(1),
            external_id: "a".to_owned(),
            run: String::new(),
        },
        number: 1,
        name: None,
        imported: false,
        created_at: None,
        labels: Vec::new(),
        detail: None,
    };
    let encoded = encode_execution(ExecutionSeq(1), &created, 0).unwrap();
    assert_eq!((encoded.code, encoded.payload), (1, None));
    let declared = ExecutionEvent::Declared {
        steps: vec![DeclaredStep {
            external_id: "4".to_owned(),
            name: "KSampler".to_owned(),
        }],
    };
    let encoded = encode_execution(ExecutionSeq(1), &declared, 3).unwrap();
    assert_eq!(encoded.payload.as_deref(), Some("[3,1]"));
    let decoded = decode(17, 1, encoded.execution, None, Some("[3,1]")).unwrap();
    assert_eq!(decoded, Decoded::Declared { first: 3, count: 1 });
}

#[test]
fn what_cannot_be_read_back_is_not_stored() {
    let unfinished = ExecutionEvent::Finished {
        status: Status::Running,
        late: false,
        outcome: Outcome::default(),
    };
    assert!(encode_execution(ExecutionSeq(1), &unfinished, 0).is_err());
    let nan = SystemEvent::ResourceOver {
        resource: "cpu".to_owned(),
        value: f64::NAN,
        limit: 1.0,
    };
    assert!(encode(&Event::System(nan)).is_err());
}

/// A change of this number means that a released code was changed. Do not adjust it: give new kinds new codes at the end.
#[test]
fn the_codes_of_kinds_are_frozen() {
    let mut hash: u64 = 0xcbf2_9ce4_8422_2325;
    // Those of the first release; what came later is frozen below, one by one.
    for (code, kind) in KINDS.iter().filter(|(code, _)| *code <= 74) {
        for byte in [*code].iter().chain(kind.as_bytes()) {
            hash = (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3);
        }
    }
    assert_eq!(hash, 296_841_964_268_516_741);
    for (code, kind) in [
        (80, "control.requested"),
        (81, "control.asked"),
        (82, "control.settled"),
    ] {
        assert_eq!(code_of(kind), Some(code));
        assert_eq!(kind_of(code), Some(kind));
    }
}
