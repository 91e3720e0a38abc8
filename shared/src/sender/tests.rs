//! Commands are sent once, or recorded where the stack observes.

mod cloud;

use std::{
    sync::{Arc, Mutex},
    time::Duration,
};

use aws_sdk_ssm::{
    operation::send_command::{SendCommandError, SendCommandOutput},
    types::Command,
};
use aws_smithy_mocks::{RuleMode, mock, mock_client};
use proptest::prelude::*;
use serde_json::json;

use super::{Order, Refusal, SendError, Sender};
use crate::{
    command::{Comment, Destination, Trigger, is_unsent_id},
    image::Image,
    mocks::time::{Answer, VirtualTime, patient_config},
    rows::Key,
    settings::Mode,
};
use cloud::{Cloud, comment, deliver, image, now, outcomes, run, selected, sender_of, settings};

const TRIGGERS: [Trigger; 5] = [
    Trigger::Push,
    Trigger::Launch,
    Trigger::Job,
    Trigger::Schedule,
    Trigger::Reconcile,
];
const JOB: &str = "e8d3c0e4-71f7-4491-898f-c9b35bee5f3b";

#[test]
fn where_the_stack_observes_whatever_is_due_becomes_one_row_and_the_same_again_none() {
    proptest!(|(
        trigger in prop::sample::select(&TRIGGERS[..]),
        attempt in 1..=6_u8,
        images in 1..=30_usize,
        ids in prop::option::of(1..=50_usize),
        occasion in ".{0,8}",
    )| {
        let cloud = Cloud::new();
        let images: Vec<Image> = (0..images).map(image).collect();
        let comment = Comment { attempt, job: (attempt > 1).then(|| JOB.to_owned()), ..Comment::first(trigger, cloud.rule()) };
        let destination = ids.map_or_else(selected, |count| Destination::Instances((0..count).map(|k| format!("i-{k:017x}")).collect()));
        let order = Order { rule: cloud.rule(), comment: &comment, images: &images, destination: destination.clone(), occasion: &occasion };
        let first = cloud.send(order.clone(), 0);
        prop_assert!(is_unsent_id(&first));
        let row = cloud.row(&Key::job(&first));
        let expected = json!({
            "pk": format!("job#{first}"), "sk": "job", "mode": "observe", "trigger": trigger, "rule": "gpu",
            "requested_at": now(0), "images": images, "destination": destination, "attempt": attempt,
            "expires_at": now(0).timestamp() + 30 * 86_400,
        });
        let mut known = row.clone();
        let (targets, retry_of) = (known.as_object_mut().unwrap().remove("targets"), known.as_object_mut().unwrap().remove("retry_of"));
        prop_assert_eq!(known, expected);
        prop_assert_eq!(targets, ids.map(|count| json!(count)));
        prop_assert_eq!(retry_of, comment.job.as_ref().map(|job| json!(job)));
        // It is delivered again a minute later.
        prop_assert_eq!(&cloud.send(order.clone(), 60), &first);
        prop_assert_eq!(cloud.row(&Key::job(&first)), row);
        prop_assert_eq!(cloud.listed(), vec![format!("2026-11-16T01:54:34.049Z#{first}")]);
        // On another occasion it is another job.
        let other = format!("{occasion} again");
        let second = cloud.send(Order { occasion: &other, ..order }, 60);
        prop_assert_ne!(&second, &first);
        prop_assert_eq!(cloud.listed().len(), 2);
    });
}

#[test]
fn what_differs_in_anything_is_another_job() {
    let cloud = Cloud::new();
    let (push, again) = (comment(Trigger::Push, 1), comment(Trigger::Push, 2));
    let launch = comment(Trigger::Launch, 1);
    let (one, two) = ([image(1)], [image(1), image(2)]);
    let usual = Order {
        rule: cloud.rule(),
        comment: &push,
        images: &one,
        destination: selected(),
        occasion: "event",
    };
    let others = [
        Order {
            comment: &again,
            ..usual.clone()
        },
        Order {
            comment: &launch,
            ..usual.clone()
        },
        Order {
            images: &two,
            ..usual.clone()
        },
        Order {
            destination: Destination::Instances(vec!["i-1".to_owned()]),
            ..usual.clone()
        },
        Order {
            occasion: "other",
            ..usual.clone()
        },
    ];
    let mut ids: Vec<String> = others
        .into_iter()
        .chain([usual])
        .map(|order| cloud.send(order, 0))
        .collect();
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 6);
}

#[test]
fn what_cannot_be_recorded_is_an_error_and_worth_another_try() {
    let cloud = Cloud::new();
    let comment = comment(Trigger::Push, 1);
    let images = [image(1)];
    let order = Order {
        rule: cloud.rule(),
        comment: &comment,
        images: &images,
        destination: selected(),
        occasion: "event",
    };
    for code in ["TransactionConflict", "InternalServerError"] {
        cloud.state.lock().unwrap().0.fail("TransactWriteItems", 0, code);
        let error = cloud.sent(order.clone(), 0).unwrap_err();
        assert_eq!(error.to_string(), "what would have been sent could not be recorded");
    }
    // The answer of the first was lost, and the SDK's own retries are off.
    cloud.state.lock().unwrap().0.fail("TransactWriteItems", 0, "Lost");
    assert!(cloud.sent(order.clone(), 0).is_err());
    assert!(is_unsent_id(&cloud.send(order, 1)));
    assert_eq!(cloud.listed().len(), 1);
}

#[test]
fn where_the_stack_sends_the_command_goes_to_ssm() {
    let ssm = mock!(aws_sdk_ssm::Client::send_command)
        .match_requests(|input| input.comment() == Some("push rule=gpu attempt=1"))
        .then_output(|| {
            let command = Command::builder().command_id(JOB).build();
            SendCommandOutput::builder().command(command).build()
        });
    let sender = Sender::sending(mock_client!(aws_sdk_ssm, RuleMode::MatchAny, [&ssm]));
    let (settings, comment, images) = (settings(), comment(Trigger::Push, 1), [image(1)]);
    let order = Order {
        rule: &settings.rules[0],
        comment: &comment,
        images: &images,
        destination: selected(),
        occasion: "event",
    };
    assert_eq!(run(sender.send(&settings, order, now(0))).unwrap(), JOB);
    assert_eq!(ssm.num_calls(), 1);
}

#[test]
fn a_burst_of_pushes_ends_with_every_command_sent_and_none_given_up() {
    for pushes in [200, 400] {
        let time = VirtualTime::default();
        let bucket = Mutex::new((10.0, Duration::ZERO));
        let clock = time.clone();
        // SSM takes ten commands a second, and ten at once.
        let config = Arc::new(patient_config(&time, move |_| {
            let (tokens, since) = &mut *bucket.lock().unwrap();
            *tokens = f64::min(10.0, *tokens + clock.now().abs_diff(*since).as_secs_f64() * 10.0);
            *since = clock.now();
            if *tokens < 1.0 {
                return Answer::Throttled;
            }
            *tokens -= 1.0;
            Answer::Taken(Duration::from_millis(100))
        }));
        let push = |k: u32| {
            let (time, config) = (time.clone(), Arc::clone(&config));
            async move {
                time.sleep(Duration::from_secs(10) * k / pushes).await;
                // Lambda's own tries.
                for (attempt, pause) in [0, 60, 120].into_iter().enumerate() {
                    time.sleep(Duration::from_secs(pause)).await;
                    let (sender, began) = (Sender::new(&config, Mode::Send, outcomes()), time.now());
                    let (settings, comment, images) = (settings(), comment(Trigger::Push, 1), [image(1)]);
                    let order = Order {
                        rule: &settings.rules[0],
                        comment: &comment,
                        images: &images,
                        destination: selected(),
                        occasion: "event",
                    };
                    let sent = sender.send(&settings, order, now(0)).await;
                    assert!(time.now() < began + Duration::from_secs(118), "Lambda ends it");
                    if sent.is_ok() {
                        return Some(attempt);
                    }
                }
                None
            }
        };
        let tries = time.run((0..pushes).map(push));
        assert!(tries.iter().all(Option::is_some), "given up");
        let tried_again = tries.iter().filter(|attempt| **attempt > Some(0)).count();
        assert!(tried_again * 20 <= tries.len(), "{tried_again} of {pushes}");
    }
}

/// Tells how SSM and IAM take an instance.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Fine,
    Denied,
    Offline,
    Invalid,
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn whoever_is_refused_is_told_with_the_reason_and_all_others_are_sent_it_once(
        kinds in prop::collection::vec(prop::sample::select(&[Kind::Fine, Kind::Fine, Kind::Fine, Kind::Fine, Kind::Denied, Kind::Offline, Kind::Invalid][..]), 1..=50),
    ) {
        let id = |k: usize| format!("i-{k:017x}");
        let kinds: std::collections::BTreeMap<String, Kind> = kinds.into_iter().enumerate().map(|(k, kind)| (id(k), kind)).collect();
        let (sends, sender) = sender_of(&kinds, None);
        let delivery = deliver(&sender, kinds.keys().cloned().collect());
        let mut sent: Vec<String> = delivery.sent.iter().flat_map(|(_, to)| to.ids().to_vec()).collect();
        sent.sort_unstable();
        let fine: Vec<String> = kinds.iter().filter(|(_, kind)| **kind == Kind::Fine).map(|(id, _)| id.clone()).collect();
        prop_assert_eq!(&sent, &fine);
        prop_assert!(delivery.failed.is_empty());
        prop_assert_eq!(delivery.refused.len() + fine.len(), kinds.len());
        for (id, refusal) in delivery.refused {
            let expected = match kinds[&id] {
                Kind::Denied => Refusal::AccessDenied,
                Kind::Offline => Refusal::NotOnline,
                Kind::Invalid | Kind::Fine => Refusal::Invalid,
            };
            prop_assert_eq!(refusal, expected, "{}", id);
        }
        if !kinds.values().any(|kind| [Kind::Offline, Kind::Invalid].contains(kind)) {
            // Each answer of IAM names one, and the others stay one command.
            let denied = kinds.len() - fine.len();
            prop_assert_eq!(sends.num_calls(), denied + usize::from(!fine.is_empty()));
            prop_assert!(delivery.sent.len() <= 1);
        }
    }
}

#[test]
fn an_instance_that_iam_names_and_that_is_none_of_the_command_is_looked_for_by_halves() {
    let kinds = (0..8).map(|k| (format!("i-{k:017x}"), if k == 5 { Kind::Denied } else { Kind::Fine }));
    let (_, sender) = sender_of(&kinds.clone().collect(), Some("i-0123456789abcdef0"));
    let delivery = deliver(&sender, kinds.map(|(id, _)| id).collect());
    assert_eq!(delivery.refused, [(format!("i-{:017x}", 5), Refusal::AccessDenied)]);
    assert_eq!(delivery.sent.iter().map(|(_, to)| to.ids().len()).sum::<usize>(), 7);
}

#[test]
fn where_iam_refuses_the_document_or_names_nothing_nobody_is_sent_it_and_one_call_is_made() {
    for resource in [
        " on resource: arn:aws:ssm:eu-central-1:123456789012:document/prefetch-images because",
        " on resource: arn:aws:ec2:eu-central-1:123456789012:instance/*",
        " on resource: ",
        " on resource: i-0123456789abcdef0",
        "",
    ] {
        let denied = mock!(aws_sdk_ssm::Client::send_command).then_error(move || {
            let message = format!("User: arn:aws:sts::1:assumed-role/f/i-0123456789abcdef0 is not authorized to perform: ssm:SendCommand{resource}");
            let error = aws_sdk_ssm::error::ErrorMetadata::builder().code("AccessDeniedException").message(message);
            SendCommandError::generic(error.build())
        });
        let sender = Sender::sending(mock_client!(aws_sdk_ssm, [&denied]));
        let ids = vec!["i-0123456789abcdef0".to_owned(), "i-0123456789abcdef1".to_owned()];
        let delivery = deliver(&sender, ids.clone());
        assert!(delivery.sent.is_empty() && delivery.refused.is_empty());
        let [(destination, SendError::Send(_))] = &delivery.failed[..] else {
            panic!("{resource}: {:?}", delivery.failed);
        };
        assert_eq!((destination.ids(), denied.num_calls()), (&ids[..], 1));
    }
}

#[test]
fn a_try_that_ends_without_an_answer_leaves_doubt_whatever_is_answered_after_it() {
    let refused = |code: &str| (400, json!({"__type": code}).to_string());
    let lost = || (500, json!({"__type": "InternalServerError"}).to_string());
    let taken = || (200, json!({"Command": {"CommandId": JOB}}).to_string());
    let throttled = || refused("ThrottlingException");
    for (answers, sent, is_in_doubt) in [
        (vec![taken()], true, false),
        (vec![throttled(), taken()], true, false),
        (vec![throttled(), throttled(), throttled()], false, false),
        (vec![refused("AccessDeniedException")], false, false),
        (vec![lost(), taken()], true, true),
        (vec![throttled(), lost(), taken()], true, true),
        (vec![lost(), throttled(), throttled()], false, true),
        (vec![lost(), refused("AccessDeniedException")], false, true),
        (vec![lost(), lost(), lost()], false, true),
    ] {
        let tries = mock!(aws_sdk_ssm::Client::send_command).sequence();
        let tries = answers.iter().fold(tries, |tries, (status, body)| {
            tries.http_status(*status, Some(body.clone()))
        });
        let tries = tries.build();
        let client = mock_client!(aws_sdk_ssm, RuleMode::Sequential, [&tries], |config| {
            let tries = aws_sdk_ssm::config::retry::RetryConfig::standard();
            config.retry_config(tries.with_initial_backoff(Duration::from_millis(1)))
        });
        let delivery = deliver(&Sender::sending(client), vec!["i-0123456789abcdef0".to_owned()]);
        assert_eq!(
            (delivery.sent.len(), delivery.is_in_doubt),
            (usize::from(sent), is_in_doubt),
            "{answers:?}"
        );
        assert_eq!(tries.num_calls(), answers.len());
    }
}

#[test]
fn a_try_that_times_out_leaves_doubt() {
    let time = VirtualTime::default();
    let calls = Arc::new(Mutex::new(0));
    let counted = Arc::clone(&calls);
    let config = patient_config(&time, move |_| {
        let mut calls = counted.lock().unwrap();
        *calls += 1;
        if *calls == 1 {
            Answer::Never
        } else {
            Answer::Taken(Duration::ZERO)
        }
    });
    let sender = Sender::new(&config, Mode::Send, outcomes());
    let (settings, comment, images) = (settings(), comment(Trigger::Job, 1), [image(1)]);
    let order = Order {
        rule: &settings.rules[0],
        comment: &comment,
        images: &images,
        destination: selected(),
        occasion: "day",
    };
    let delivery = time.run([sender.deliver(&settings, order, now(0))]).remove(0);
    assert_eq!(
        (delivery.sent.len(), delivery.is_in_doubt, *calls.lock().unwrap()),
        (1, true, 2)
    );
}
