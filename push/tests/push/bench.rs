//! A simulator, and the providers of the configuration that it writes.

use std::sync::Arc;
use std::time::Duration;

use tempfile::TempDir;
use tidemark_env::{Clock, ManualClock, Rng, SystemClock, SystemRng};
use tidemark_push::{Hint, Outcome, Providers, PushConfig};
use tidemark_push_sim::{Counted, Service, Sim, SimConfig};
use tidemark_types::{DeviceId, Epoch, Seq, UnixMs, UserId};

/// The providers of the configuration that the simulator writes, and their services.
pub(crate) const ALL: [(&str, Service); 7] = [
    ("apns", Service::Apns),
    ("fcm", Service::Fcm),
    ("wns", Service::Wns),
    ("webpush", Service::WebPush),
    ("mpns", Service::Mpns),
    ("bbpush", Service::BbPush),
    ("webhook", Service::Webhook),
];

pub(crate) struct Bench {
    pub(crate) sim: Sim,
    pub(crate) providers: Providers,
    config: PushConfig,
    clock: Arc<ManualClock>,
    // The keys' files, read once.
    _folder: TempDir,
}

impl Bench {
    pub(crate) async fn start() -> Bench {
        Self::with(|text| text).await
    }

    /// With a configuration that was changed.
    pub(crate) async fn with(change: impl FnOnce(String) -> String) -> Bench {
        Self::of(SimConfig::default(), change).await
    }

    /// With an Apple that counts tokens so.
    pub(crate) async fn counting(counted: Counted) -> Bench {
        Self::of(SimConfig { counted, ..SimConfig::default() }, |text| text).await
    }

    async fn of(vendors: SimConfig, change: impl FnOnce(String) -> String) -> Bench {
        let sim = Sim::start(vendors).await.expect("it starts");
        let folder = tempfile::tempdir().expect("a folder");
        sim.write(folder.path()).expect("written");
        let text = std::fs::read_to_string(folder.path().join("push.toml")).expect("it is there");
        let config: PushConfig = toml::from_str(&change(text)).expect("a configuration");
        // Stands still but for what a test lets pass.
        let clock = Arc::new(ManualClock::at(SystemClock::new().wall()));
        let providers = providers(&config, clock.clone());
        Bench { sim, providers, config, clock, _folder: folder }
    }

    /// The providers of another gateway with the same configuration, which has just started.
    pub(crate) fn another(&self) -> Providers {
        providers(&self.config, self.clock.clone())
    }

    /// Lets time pass until all gateways have made a new token for Apple, so many minutes ago.
    pub(crate) fn past_apples_mark(&self, minutes: u64) {
        const EVERY_S: u64 = 40 * 60;
        let now_s = self.clock.wall().get() / 1_000;
        self.advance(Duration::from_secs(EVERY_S - now_s % EVERY_S + minutes * 60));
    }

    /// Lets time pass, here and at the vendors.
    pub(crate) fn advance(&self, by: Duration) {
        self.clock.advance(by);
        self.sim.advance(by);
    }

    /// A target as a device of that service would register, and what the simulator calls it.
    pub(crate) fn target(&self, service: Service) -> (String, String) {
        let http = self.sim.http();
        let same = |target: &str| (target.to_owned(), target.to_owned());
        match service {
            Service::Apns => same(&"5a".repeat(32)),
            Service::Fcm => same("device:abc-1"),
            Service::Wns => (format!("http://{http}/wns/channel/abc"), "abc".to_owned()),
            Service::Mpns => (format!("http://{http}/mpns/channel/abc"), "abc".to_owned()),
            Service::BbPush => same("2100000A"),
            Service::Webhook => same("whatever the operator's server knows"),
            Service::WebPush => {
                let server = self.sim.credentials().vapid_public();
                let subscription = self.sim.subscribe(Some(server));
                let id = subscription.endpoint.rsplit('/').next().expect("an id").to_owned();
                (serde_json::to_string(&subscription).expect("JSON"), id)
            }
        }
    }

    pub(crate) async fn send(&self, hint: &Hint) -> Outcome {
        let provider = self.providers.get(&hint.provider).expect("it is configured");
        provider.check(&hint.target).expect("a target");
        provider.send(hint).await
    }
}

pub(crate) fn hint(provider: &str, target: &str, head: u32) -> Hint {
    Hint {
        user: UserId::new("ann").expect("legal"),
        device: DeviceId::new(provider).expect("legal"),
        provider: provider.to_owned(),
        target: target.to_owned(),
        version: 1,
        registered_at: UnixMs::new(1_000),
        epoch: Epoch::FIRST,
        head: Seq::new(head),
    }
}

fn providers(config: &PushConfig, clock: Arc<dyn Clock>) -> Providers {
    let rng: Arc<dyn Rng> = Arc::new(SystemRng);
    Providers::build(config, &clock, &rng).expect("they can be made")
}
