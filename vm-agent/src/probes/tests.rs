//! What follows from what attempts give.

use super::*;

fn probe(kind: ProbeKind, successes: u32, failures: u32) -> Probe {
    Probe { kind, period_s: 10, timeout_s: 1, successes, failures }
}

fn tcp(port: u16) -> Probe {
    probe(ProbeKind::Tcp { port }, 1, 3)
}

fn failed() -> Result<(), String> {
    Err("refused".to_owned())
}

#[test]
fn so_many_in_a_row_change_what_is_thought_and_one_does_not() {
    let mut judge = Judge::new(&probe(ProbeKind::Tcp { port: 1 }, 2, 3), Verdict::default());
    let mut after = |results: Vec<Result<(), String>>| {
        results.into_iter().map(|result| judge.take(result)).last().map(|verdict| verdict.state)
    };
    assert_eq!(after(vec![Ok(())]), Some(State::Pending));
    assert_eq!(after(vec![Ok(())]), Some(State::Passing));
    assert_eq!(after(vec![failed(), failed(), Ok(()), failed(), failed()]), Some(State::Passing));
    assert_eq!(after(vec![failed()]), Some(State::Failing));
    assert_eq!(after(vec![Ok(())]), Some(State::Failing));
    assert_eq!(after(vec![failed(), Ok(()), Ok(())]), Some(State::Passing));
    // A gateway that says nonsense changes nothing else.
    let mut judge = Judge::new(&probe(ProbeKind::Tcp { port: 1 }, 0, 0), Verdict::default());
    assert_eq!(judge.take(failed()).state, State::Failing);
    assert_eq!(judge.take(Ok(())).state, State::Passing);
}

#[test]
fn the_last_result_is_shown_and_the_reason_stays() {
    let mut judge = Judge::new(&tcp(1), Verdict::default());
    for _ in 0..3 {
        judge.take(failed());
    }
    let verdict = judge.take(Err("late".to_owned()));
    assert_eq!((verdict.reason.as_str(), verdict.message.as_str()), ("refused", "late"));
    let verdict = judge.take(Ok(()));
    assert_eq!((verdict.state, verdict.message.as_str()), (State::Passing, ""));
}

#[test]
fn the_gateway_is_told_of_the_whole() {
    let verdict = |state| Verdict { state, reason: "refused".to_owned(), message: String::new() };
    let told = |states: &[State]| {
        let all = states.iter().zip(1_u16..).map(|(state, port)| (tcp(port), verdict(*state)));
        let report = report(&all.collect());
        (report.state, report.message)
    };
    let (passing, failing, pending) = (State::Passing, State::Failing, State::Pending);
    assert_eq!(told(&[]).0, "none");
    assert_eq!(told(&[passing, pending]).0, "pending");
    assert_eq!(told(&[passing, passing]), ("passing".to_owned(), String::new()));
    assert_eq!(told(&[passing, failing, pending]), ("failing".to_owned(), "tcp 2: refused".to_owned()));
}

#[tokio::test]
async fn what_is_known_of_a_probe_stays_while_others_come_and_go() {
    let verdicts = watch::Sender::new(Verdicts::new());
    let (mut attempts, means) = (JoinSet::new(), Means { addresses: Arc::new([]), exec: None });
    begin(&verdicts, &[tcp(1), tcp(2)], &means, &mut attempts);
    verdicts.send_modify(|all| {
        for verdict in all.values_mut() {
            verdict.state = State::Passing;
        }
    });
    attempts.abort_all();
    begin(&verdicts, &[tcp(2), tcp(3)], &means, &mut attempts);
    let states: Vec<State> = verdicts.borrow().values().map(|verdict| verdict.state).collect();
    assert_eq!(states, [State::Passing, State::Pending]);
    begin(&verdicts, &[], &means, &mut attempts);
    assert_eq!(report(&verdicts.borrow()).state, "none");
}

#[tokio::test]
async fn what_is_not_known_or_not_allowed_never_succeeds_and_says_so() {
    let means = Means { addresses: Arc::new([]), exec: None };
    let said = |kind| {
        let means = means.clone();
        async move { attempt(&probe(kind, 1, 1), &means).await.unwrap_err() }
    };
    let text = said(ProbeKind::Unknown("grpc".to_owned())).await;
    assert_eq!(text, "this agent knows no probe \"grpc\"");
    let text = said(ProbeKind::Exec { name: "ready".to_owned() }).await;
    assert!(text.contains("execProbes"), "{text}");
}
