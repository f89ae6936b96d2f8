//! The paper's two flows. Sending: A to B, who is there, and gets it. Receiving: B is away, is woken by
//! the platform's push, syncs from its own seq and confirms.
//!
//! ```text
//!   A ──► gateway ──► store ──► gateway ──► B's phone, B's tablet        both are there
//!   A ──► gateway ──► store ──► gateway ──► B's tablet                   the phone is away:
//!                       └──► push service ──wakes──► B's phone ──► Sync (seq_cli, seq_svr], Ack
//! ```
//!
//! What a push service got is what the simulator says of that device's token; what a device got is
//! what its application took; what it confirmed is what the cluster says.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use tidemark_client::{DeviceInfo, Label, PushTarget};
use tidemark_push_sim::{Received, Service, Sim};
use tidemark_types::{Seq, UserId};

use crate::cluster::Cluster;
use crate::phone::{PATIENCE, Phone};

/// How often the simulator is asked.
const LOOK: Duration = Duration::from_millis(20);

/// All of them, by the names that the simulator's configuration gives them.
pub(crate) const PROVIDERS: [(&str, Service); 7] = [
    ("apns", Service::Apns),
    ("fcm", Service::Fcm),
    ("wns", Service::Wns),
    ("webpush", Service::WebPush),
    ("mpns", Service::Mpns),
    ("bbpush", Service::BbPush),
    ("webhook", Service::Webhook),
];

/// Where the flows are shown.
pub(crate) struct Stage<'a> {
    /// The cluster.
    pub(crate) cluster: &'a Cluster,
    /// The push services.
    pub(crate) sim: &'a Sim,
    /// Where devices have their stores.
    pub(crate) folder: &'a Path,
}

/// A token of a device, and what the simulator calls it.
struct Token {
    target: PushTarget,
    known_as: String,
}

impl Stage<'_> {
    /// A device of a user.
    pub(crate) fn phone(&self, user: &UserId, name: &str) -> Result<Phone> {
        Phone::new(self.cluster, self.folder, user, name)
    }

    /// B is there: how long a message takes from A's application to B's.
    pub(crate) async fn online(&self, alice: &Phone) -> Result<Duration> {
        let bob = UserId::new("bob")?;
        let mut phone = self.phone(&bob, "phone")?;
        phone.on().await?;
        // Opens A's session, which is not a message's way.
        alice.send(&bob, "first").await?;
        phone.took("first").await?;
        let from = Instant::now();
        alice.send(&bob, "second").await?;
        let took = phone.took("second").await?.duration_since(from);
        phone.has_exactly(&["first", "second"])?;
        phone.off().await;
        Ok(took)
    }

    /// B's phone is away and is woken through one provider; B's tablet is there all the time.
    pub(crate) async fn offline(&self, alice: &Phone, provider: &str, of: Service) -> Result<()> {
        let bob = UserId::new(format!("bob-{provider}"))?;
        let (mut phone, mut tablet) = (self.phone(&bob, "phone")?, self.phone(&bob, "tablet")?);
        phone.on().await?;
        tablet.on().await?;
        let (own, second) = (self.token(provider, of, 1)?, self.token(provider, of, 2)?);
        let (first, then) = ("while both are there", "while the phone is away");

        self.registers(&phone, &own, "Bob's phone").await?;
        self.registers(&tablet, &second, "Bob's tablet").await?;
        alice.send(&bob, first).await?;
        phone.took(first).await?;
        tablet.took(first).await?;
        for device in [&phone, &tablet] {
            let confirmed = |it: &DeviceInfo| it.cursor == Seq::new(1);
            device.until(device.name(), "at 1", confirmed).await?;
        }
        ensure!(self.pushes(of, &own).is_empty(), "who is there was pushed");

        phone.off().await;
        tablet.until(phone.name(), "away", |it| !it.connected).await?;
        alice.send(&bob, then).await?;
        tablet.took(then).await?;
        let push = self.push(of, &own).await?;
        let told = (names(&push.body, &bob), head(&push.body));
        ensure!(told == (true, Some(2)), "it is told {:?}, not of {bob}'s 2", push.body);

        // The push wakes it: it connects with the store that it had, and syncs from its own seq.
        phone.on().await?;
        phone.took(then).await?;
        let (cursor, known) = (Seq::new(2), phone.name());
        let woken = |it: &DeviceInfo| (it.cursor, it.pushed_upto) == (cursor, cursor);
        phone.until(known, "at 2, and known to be told", woken).await?;
        phone.until(tablet.name(), "at 2", |it| it.cursor == cursor).await?;
        phone.has_exactly(&[first, then])?;
        tablet.has_exactly(&[first, then])?;
        let pushes = (self.pushes(of, &own).len(), self.pushes(of, &second).len());
        ensure!(pushes == (1, 0), "phone and tablet were pushed {pushes:?} times");

        self.leaves(phone, tablet).await
    }

    /// A device says what it is called and where it is woken, replaces that, and is listed with it.
    async fn registers(&self, device: &Phone, token: &Token, called: &str) -> Result<()> {
        let label = Label { name: called.to_owned(), platform: token.target.provider.clone() };
        device.devices().set_label(label.clone()).await?;
        // An older token of another platform, which is to be replaced.
        let older = PushTarget { provider: "webhook".to_owned(), target: "older".to_owned() };
        device.devices().set_push(older).await?;
        device.devices().set_push(token.target.clone()).await?;
        let listed = |it: &DeviceInfo| {
            it.label == label && it.push_provider.as_ref() == Some(&token.target.provider)
        };
        device.until(device.name(), "listed as it says", listed).await?;
        Ok(())
    }

    /// One device logs the other one out, and is woken no more itself.
    async fn leaves(&self, mut phone: Phone, mut tablet: Phone) -> Result<()> {
        phone.devices().log_out(tablet.name()).await?;
        tablet.is_logged_out().await?;
        phone.devices().remove_push().await?;
        let gone = |it: &DeviceInfo| it.logged_out.is_some() && it.push_provider.is_none();
        phone.until(tablet.name(), "logged out", gone).await?;
        let mute = |it: &DeviceInfo| it.logged_out.is_none() && it.push_provider.is_none();
        phone.until(phone.name(), "without a token", mute).await?;
        phone.off().await;
        tablet.off().await;
        Ok(())
    }

    /// A token as a device of that platform would get it.
    fn token(&self, provider: &str, of: Service, number: u8) -> Result<Token> {
        let (http, id) = (self.sim.http(), format!("device-{number}"));
        let same = |target: String| (target.clone(), target);
        let (target, known_as) = match of {
            Service::Apns => same(format!("{number:02x}").repeat(32)),
            Service::BbPush => same(format!("2100000{number:X}")),
            Service::Fcm | Service::Webhook => same(id),
            Service::Wns => (format!("http://{http}/wns/channel/{id}"), id),
            Service::Mpns => (format!("http://{http}/mpns/channel/{id}"), id),
            Service::WebPush => {
                let server = self.sim.credentials().vapid_public();
                let subscription = self.sim.subscribe(Some(server));
                let id = subscription.endpoint.rsplit('/').next().context("an id")?.to_owned();
                (serde_json::to_string(&subscription)?, id)
            }
        };
        Ok(Token { target: PushTarget { provider: provider.to_owned(), target }, known_as })
    }

    /// What the service got for this token.
    fn pushes(&self, of: Service, token: &Token) -> Vec<Received> {
        let received = self.sim.received(of).into_iter();
        received.filter(|it| it.target == token.known_as).collect()
    }

    /// Waits for the first push.
    async fn push(&self, of: Service, token: &Token) -> Result<Received> {
        let ends = Instant::now() + PATIENCE;
        loop {
            if let Some(push) = self.pushes(of, token).into_iter().next() {
                return Ok(push);
            }
            ensure!(Instant::now() < ends, "the service got no push for the phone's token");
            tokio::time::sleep(LOOK).await;
        }
    }
}

/// Does it say whose mailbox it is about?
fn names(body: &str, user: &UserId) -> bool {
    body.contains(user.as_str())
}

/// The seq that a push tells, in whatever form its platform has: the number after the last `head`.
fn head(body: &str) -> Option<u32> {
    let (_, after) = body.rsplit_once("head")?;
    let digits = after.trim_start_matches(|it: char| !it.is_ascii_digit());
    let end = digits.find(|it: char| !it.is_ascii_digit()).unwrap_or(digits.len());
    digits[..end].parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_told_seq_is_found_in_every_form() {
        for (body, told) in [
            (r#"{"user":"ann","epoch":1,"head":7}"#, Some(7)),
            (r#"{"message":{"data":{"epoch":"1","head":"12","user":"a1"}}}"#, Some(12)),
            ("<wp:Param>/?user=ann&amp;head=3</wp:Param>", Some(3)),
            ("head", None),
            ("nothing", None),
        ] {
            assert_eq!(head(body), told, "{body}");
        }
    }
}
