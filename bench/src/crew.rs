//! The devices of a run: connected, put to work, and gathered in again.

use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use futures::{StreamExt, TryStreamExt, stream};
use tidemark_proto::v1;
use tidemark_types::{DeviceId, UserId};
use tokio::sync::mpsc;
use tokio::task::JoinSet;

use crate::body::Bodies;
use crate::cast::Cast;
use crate::device::{Device, Identity, Left, Shared};
use crate::meter::Phase;
use crate::pace;
use crate::sender::{Correspondents, Load, Sender};
use crate::settings::{Carrier, Settings};
use crate::stage::Stage;
use crate::target::Target;
use crate::websocket;
use crate::wire::{Gateway, Wire};
use crate::workload::{Line, Messages, Pace};

/// Devices that connect at once.
const CONNECTING: usize = 16;

/// Devices at work.
pub(crate) struct Crew {
    pub(crate) cast: Cast,
    /// What makes messages due, one for each sender; none in a closed loop.
    pub(crate) queues: Vec<mpsc::Sender<Duration>>,
    tasks: JoinSet<Left>,
}

/// Who some user's device is.
pub(crate) fn identity(
    target: &Target,
    number: usize,
    user: &UserId,
    name: &str,
    start: v1::StartAt,
) -> Result<Identity> {
    let device = DeviceId::new(name).context("a device's name")?;
    Ok(Identity {
        number,
        token: target.device_token(user, &device),
        user: user.clone(),
        device,
        cluster: target.cluster,
        start,
    })
}

/// What a workload's devices have in common.
pub(crate) fn shared(stage: &Stage<'_>, pulls: bool) -> Shared {
    let bodies = Arc::new(Bodies::new(stage.settings.body));
    Shared { bodies, meter: stage.lookout.meter.clone(), pulls }
}

impl Crew {
    /// Connects all devices, the senders first, each of them with its session; and lets them run.
    pub(crate) async fn at_work(
        stage: &Stage<'_>,
        gateway: &Gateway,
        cast: Cast,
        messages: &Messages,
    ) -> Result<Self> {
        let Stage { target, settings, .. } = *stage;
        let shared = shared(stage, messages.pulls);
        let senders = cast.senders.len();
        let identities = (0..).zip(cast.users());
        let identities = identities
            .map(|(number, user)| identity(target, number, user, "bench", v1::StartAt::Head));
        let identities: Vec<Identity> = identities.collect::<Result<_>>()?;
        let connecting = stream::iter(identities).map(async |identity| {
            let sends = identity.number < senders;
            let line = if sends { Line::Shared } else { messages.line };
            let wire = open(target, gateway, settings, line, &identity).await?;
            Device::welcomed(wire, identity, shared.clone()).await
        });
        let mut connecting = pin!(connecting.buffered(CONNECTING));
        let mut tasks = JoinSet::new();
        let mut devices = Vec::with_capacity(senders);
        while let Some(device) = connecting.try_next().await? {
            match devices.len() < senders {
                true => devices.push(device),
                // It reads from now on: what one device leaves unread is room that those on the same connection
                // do not have, and that the next ones need for their Welcome.
                false => drop(tasks.spawn(device.run())),
            }
        }
        let opening = stream::iter(&mut devices).map(Device::open_session);
        let sessions: Vec<u64> = opening.buffered(CONNECTING).try_collect().await?;
        let (queues, due) = match messages.pace {
            Pace::Closed => (Vec::new(), Vec::new()),
            Pace::Open | Pace::AtLast => pace::queues(senders),
        };
        let mut due = due.into_iter();
        let with_sessions = (0..).zip(&cast.senders).zip(sessions).zip(&mut devices);
        for (((index, (_, mine)), session), device) in with_sessions {
            let load = match messages.pace {
                Pace::Closed => Load::Closed(stage.scale.in_flight as usize),
                Pace::Open | Pace::AtLast => Load::Open(due.next()),
            };
            let (all, mine) = (cast.recipients.clone(), mine.clone());
            let to = Correspondents { all, mine, aim: cast.aim.clone() };
            let Shared { bodies, meter, .. } = shared.clone();
            device.sends(Sender::new(index, session, to, load, bodies, meter));
        }
        for device in devices {
            tasks.spawn(device.run());
        }
        Ok(Crew { cast, queues, tasks })
    }

    /// All confirm what they have, and leave; what they leave behind, by the devices' numbers.
    pub(crate) async fn leave(self, stage: &Stage<'_>) -> (Cast, Vec<Left>) {
        stage.lookout.meter.enter(Phase::Finish);
        let mut left: Vec<Left> = self.tasks.join_all().await;
        left.sort_by_key(|left| left.identity.number);
        (self.cast, left)
    }
}

/// A device's stream, on which it has said `Hello`.
async fn open(
    target: &Target,
    gateway: &Gateway,
    settings: &Settings,
    line: Line,
    identity: &Identity,
) -> Result<Wire> {
    match (line, settings.carrier) {
        (Line::Shared, _) => gateway.open(identity.number, identity.hello()).await,
        (Line::Own, Carrier::Grpc) => Gateway::open_alone(&target.gateway, identity.hello()).await,
        (Line::Own, Carrier::Websocket) => {
            websocket::open(&target.gateway_http, identity.hello()).await
        }
    }
}
