//! The live page: what may load it, who may look, and what is seen.

use tidemark_proto::store::v1::GroupStatus;
use tidemark_token::Role;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{TcpListener, TcpStream};

use crate::gateway::{Gateway, device_of};

async fn ask(gateway: &Gateway, path: &str, token: Option<&str>) -> TcpStream {
    let mut stream = TcpStream::connect(gateway.http).await.unwrap();
    let token = token.map(|token| format!("authorization: Bearer {token}\r\n"));
    let token = token.unwrap_or_default();
    let request = format!("GET {path} HTTP/1.1\r\nhost: x\r\n{token}connection: close\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    stream
}

async fn whole(mut stream: TcpStream) -> String {
    let mut answer = String::new();
    stream.read_to_string(&mut answer).await.unwrap();
    answer
}

/// What comes until it holds `wanted`.
async fn until(stream: &mut TcpStream, wanted: &str) -> String {
    let mut came = Vec::new();
    loop {
        let text = String::from_utf8_lossy(&came).into_owned();
        if text.contains(wanted) {
            return text;
        }
        assert!(stream.read_buf(&mut came).await.unwrap() > 0, "{text}");
    }
}

#[tokio::test]
async fn the_page_loads_nothing_but_its_own_parts() {
    let gateway = Gateway::start().await;
    for (path, kind) in [
        ("/live", "text/html; charset=utf-8"),
        ("/live/page.js", "text/javascript; charset=utf-8"),
        ("/live/page.css", "text/css; charset=utf-8"),
    ] {
        let answer = whole(ask(&gateway, path, None).await).await;
        assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
        assert!(answer.contains(&format!("content-type: {kind}\r\n")), "{answer}");
        assert!(answer.contains("content-security-policy: default-src 'none';"), "{answer}");
        assert!(answer.len() < 32 << 10, "{path} has {} bytes", answer.len());
    }
}

#[tokio::test]
async fn only_an_operator_sees_samples() {
    let gateway = Gateway::start().await;
    let service = gateway.token(Role::Service);
    let device = gateway.token(device_of("alice"));
    let expired = gateway.expired(Role::Admin);
    for (token, status) in [
        (None, 401),
        (Some("nonsense"), 401),
        (Some(&*expired), 401),
        (Some(&*service), 403),
        (Some(&*device), 403),
    ] {
        let answer = whole(ask(&gateway, "/live/events", token).await).await;
        assert!(answer.starts_with(&format!("HTTP/1.1 {status}")), "{answer}");
    }
}

#[tokio::test]
async fn a_sample_says_who_leads_and_who_does_not_answer() {
    let gateway = Gateway::start().await;
    let leads = GroupStatus { group: 1, term: 7, leader: 2, ..GroupStatus::default() };
    gateway.store.nodes.lock().insert(2, vec![leads.clone()]);
    let token = gateway.token(Role::Admin);
    let mut one = ask(&gateway, "/live/events", Some(&token)).await;
    let seen = until(&mut one, "\n\n").await;
    assert!(seen.contains("content-type: text/event-stream"), "{seen}");
    assert!(seen.contains(r#"data: {"nodes":[{"node":1},{"node":2,"stands":"#), "{seen}");
    assert!(seen.contains(r#""groups":[[1,7,2,0,0,""]]"#), "{seen}");
    assert!(seen.contains(r#""alarms":[["wrong_shard",3]]"#), "{seen}");
    // Two share a sampler, and see what changes.
    let mut other = ask(&gateway, "/live/events", Some(&token)).await;
    gateway.store.nodes.lock().insert(2, vec![GroupStatus { term: 8, ..leads }]);
    for stream in [&mut one, &mut other] {
        until(stream, r#""groups":[[1,8,2,"#).await;
    }
}

#[tokio::test]
async fn a_sample_tells_of_every_gateway_and_of_those_that_do_not_answer() {
    let (gateway, other) = (Gateway::start().await, Gateway::start().await);
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let silent = silent.local_addr().unwrap().to_string();
    gateway.store.lead(1);
    *gateway.store.gateways.lock() = vec![silent.clone(), other.http.to_string()];
    let token = gateway.token(Role::Admin);
    let mut stream = ask(&gateway, "/live/events", Some(&token)).await;
    let seen = until(&mut stream, r#""gateways":["#).await + &until(&mut stream, "\n\n").await;
    let told = seen.lines().find_map(|line| Some(line.split_once(r#""gateways":["#)?.1)).unwrap();
    // Itself, by where the configuration says that it listens.
    for tells in ["127.0.0.1:7401", &other.http.to_string()] {
        assert!(told.contains(&format!(r#"{{"at":"{tells}","tells":["#)), "{told}");
    }
    assert!(told.contains(&format!(r#"{{"at":"{silent}"}}"#)), "{told}");
}
