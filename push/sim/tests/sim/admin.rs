//! Orders and questions over HTTP, as scripts and demonstrations use them.

use serde_json::{Value, json};
use tidemark_push_sim::{Service, Sim, SimConfig};

use crate::raw::{Raw, client};

async fn ask(sim: &Sim, what: &str, order: Value) -> (u16, Value) {
    let url = format!("http://{}/sim/{what}", sim.http());
    let request = Raw::post(url, &[], &order.to_string());
    let request = if order.is_null() { request.method(hyper::Method::GET) } else { request };
    let answer = request.send(&client(sim, false)).await;
    (answer.status, answer.json())
}

#[tokio::test]
async fn orders_are_obeyed_and_mistakes_in_them_refused() {
    let sim = Sim::start(SimConfig::default()).await.expect("it starts");
    let (status, subscription) = ask(&sim, "subscribe", json!({})).await;
    assert_eq!(status, 201);
    assert!(subscription["endpoint"].as_str().is_some_and(|url| url.starts_with("http://127.")));
    let fault = json!({ "service": "mpns", "count": 1, "status": 406, "reason": "Dropped" });
    assert_eq!(ask(&sim, "fail", fault).await.0, 200);
    let kill = json!({ "service": "mpns", "target": "gone" });
    assert_eq!(ask(&sim, "kill", kill).await.0, 200);
    assert_eq!(ask(&sim, "advance", json!({ "seconds": 60 })).await.0, 200);
    for (what, order) in [
        ("fail", json!({ "service": "pigeon" })),
        ("fail", json!({ "service": "apns", "colour": 1 })),
        ("kill", json!({ "service": "apns" })),
        ("advance", json!({ "seconds": -1 })),
    ] {
        assert_eq!(ask(&sim, what, order.clone()).await.0, 400, "{what} {order}");
    }
    assert_eq!(ask(&sim, "dance", json!({})).await.0, 404);

    let client = client(&sim, false);
    let push = |channel: &str| {
        let url = format!("http://{}/mpns/channel/{channel}", sim.http());
        Raw::post(url, &[("x-notificationclass", "3")], "wake").send(&client)
    };
    let statuses = [push("abc").await.status, push("abc").await.status, push("gone").await.status];
    assert_eq!(statuses, [406, 200, 404]);
    assert_eq!(sim.received(Service::Mpns).len(), 1);
    let (_, received) = ask(&sim, "received?service=mpns&target=abc", Value::Null).await;
    assert_eq!(received[0]["body"], "wake");
    assert_eq!(ask(&sim, "received?target=else", Value::Null).await.1, json!([]));
    assert_eq!(ask(&sim, "received?service=pigeon", Value::Null).await.0, 400);
}

#[tokio::test]
async fn it_listens_on_loopback_only() {
    let open = SimConfig { http: ([0, 0, 0, 0], 0).into(), ..SimConfig::default() };
    let refused = Sim::start(open).await.err().expect("refused").to_string();
    assert!(refused.contains("is not loopback"), "{refused}");
}
