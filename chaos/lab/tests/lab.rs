//! Each tool does what it says, and undoes it. Needs root, as the tools do.

use std::fs::{self, File};
use std::io::Write;
use std::net::{SocketAddr, TcpStream};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant, SystemTime};

use anyhow::{Context, Result, ensure};
use tidemark_lab::ballast::Ballast;
use tidemark_lab::disk::LoopFs;
use tidemark_lab::lan::{self, HERE, Host, Lan};
use tidemark_lab::packets::{WeakHost, Weather};
use tidemark_lab::preload::{Call, Library, Pace};
use tidemark_lab::throttle::Throttle;

const DISK_BYTES: u64 = 256 << 20;

/// How long a host takes to say that nobody listens there; none if it says nothing.
fn refused_after(host: Host, patience: Duration) -> Option<Duration> {
    let (address, began) = (SocketAddr::from((host.address(), 9)), Instant::now());
    let refused = TcpStream::connect_timeout(&address, patience).err()?;
    (refused.kind() == std::io::ErrorKind::ConnectionRefused).then(|| began.elapsed())
}

#[test]
fn packets_are_late_or_lost_until_the_sky_clears() -> Result<()> {
    let _alone = tidemark_lab::alone()?;
    lan::enter()?;
    let host = Host(1);
    let lan = Lan::create([host])?;
    let patience = Duration::from_secs(30);
    let (delay, jitter) = (Duration::from_millis(200), Duration::ZERO);
    ensure!(refused_after(host, patience).context("no answer")? < delay, "it is late already");
    let weak = WeakHost::start(host, &[HERE], Weather { loss: 0.0, delay, jitter }, 1)?;
    // The question and the answer.
    ensure!(refused_after(host, patience).context("no answer")? >= 2 * delay, "it is not late");
    let tally = weak.end()?;
    ensure!(tally.late >= 2 && tally.lost == 0, "{tally:?}");

    let weather = Weather { loss: 1.0, delay: Duration::ZERO, jitter };
    let weak = WeakHost::start(host, &[HERE], weather, 1)?;
    ensure!(refused_after(host, Duration::from_secs(2)).is_none(), "a lost packet was answered");
    ensure!(weak.end()?.lost > 0, "nothing was lost");
    ensure!(refused_after(host, patience).context("no answer")? < delay, "it is still late");

    lan.cut(HERE, host)?;
    ensure!(refused_after(host, Duration::from_secs(2)).is_none(), "a cut was answered");
    ensure!(lan.allow(HERE, host)? > 0, "nothing was dropped");
    ensure!(refused_after(host, patience).is_some(), "it is still cut");
    Ok(())
}

#[test]
fn a_full_disk_has_space_again() -> Result<()> {
    let disk = LoopFs::create(DISK_BYTES)?;
    fs::create_dir(disk.data())?;
    let bytes = || rustix::fs::statvfs(disk.data()).map(|disk| disk.f_bavail * disk.f_frsize);
    let before = bytes()?;
    let ballast = Ballast::leave(&disk.data(), 8 << 20)?;
    ensure!(bytes()? <= 8 << 20, "{} bytes are left", bytes()?);
    drop(ballast);
    ensure!(bytes()? == before, "{} bytes are left", bytes()?);
    let ballast = Ballast::fill(&disk.data())?;
    let full = fs::write(disk.data().join("file"), vec![b'x'; 1 << 20]);
    ensure!(full.is_err(), "a full disk takes a file");
    drop(ballast);
    fs::write(disk.data().join("file"), vec![b'x'; 1 << 20])?;
    Ok(())
}

#[test]
fn a_stalled_disk_goes_on_when_it_may() -> Result<()> {
    let disk = LoopFs::create(DISK_BYTES)?;
    let mut throttle = Throttle::create(std::process::id(), disk.device()?)?;
    throttle.stall()?;
    let path = disk.safe().join("mnt/file");
    let writing = std::thread::spawn(move || {
        let mut file = File::create(path)?;
        file.write_all(&vec![b'x'; 64 << 10])?;
        file.sync_data()
    });
    std::thread::sleep(Duration::from_secs(2));
    let waits = !writing.is_finished();
    drop(throttle);
    writing.join().expect("it does not panic")?;
    ensure!(waits, "a stalled disk took what was written");
    Ok(())
}

#[test]
fn a_clock_is_wrong_for_the_program_alone() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let preload = Library::compile(folder.path())?.before(&folder.path().join("date"))?;
    let ahead = || -> Result<i64> {
        let told =
            Command::new("env").args(preload.environment(None)).args(["date", "+%s"]).output()?;
        let told: i64 = String::from_utf8(told.stdout)?.trim().parse()?;
        let now = SystemTime::UNIX_EPOCH.elapsed()?.as_secs();
        Ok(told - i64::try_from(now)?)
    };
    ensure!(ahead()?.abs() < 60, "it is wrong already");
    preload.set_clock(Pace::Off(-3_600))?;
    ensure!((-3_660..-3_540).contains(&ahead()?), "it is {} s ahead", ahead()?);
    preload.set_clock(Pace::Fast(500_000))?;
    std::thread::sleep(Duration::from_secs(8));
    ensure!((3..60).contains(&ahead()?), "it is {} s ahead", ahead()?);
    preload.set_clock(Pace::Right)?;
    ensure!(ahead()?.abs() < 60, "it is still wrong");
    Ok(())
}

#[test]
fn syncs_wait_until_they_are_let_go() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let preload = Library::compile(folder.path())?.before(&folder.path().join("dd"))?;
    preload.hold_syncs(true)?;
    let file = folder.path().join("file");
    let mut command = Command::new("env");
    command.args(preload.environment(None)).args([
        "dd",
        "conv=fdatasync",
        "if=/dev/zero",
        "count=1",
    ]);
    let mut program =
        command.arg(format!("of={}", file.display())).stderr(Stdio::null()).spawn()?;
    let from = Instant::now();
    while preload.held_syncs()? == 0 && from.elapsed() < Duration::from_secs(30) {
        std::thread::sleep(Duration::from_millis(5));
    }
    ensure!(program.try_wait()?.is_none() && file.metadata()?.len() == 512, "it does not wait");
    preload.hold_syncs(false)?;
    ensure!(program.wait()?.success() && preload.held_syncs()? == 1, "it does not go on");
    Ok(())
}

#[test]
fn calls_fail_as_often_as_asked_for() -> Result<()> {
    let folder = tempfile::tempdir()?;
    let preload = Library::compile(folder.path())?.before(&folder.path().join("dd"))?;
    let succeeds_with = |call: Call, library: Option<&str>| -> Result<bool> {
        let file = folder.path().join("file").display().to_string();
        let source = folder.path().join("preload.c").display().to_string();
        // `dd` writes to its standard output, which is spared.
        let program = match call {
            Call::Write => vec!["cp".to_owned(), "--sparse=always".to_owned(), source, file],
            _ => vec!["dd".to_owned(), "conv=fdatasync".to_owned(), format!("of={file}")],
        };
        let mut command = Command::new("env");
        command.args(preload.environment(library)).args(program);
        command.stdin(Stdio::null());
        Ok(command.output()?.status.success())
    };
    let succeeds = |call| succeeds_with(call, None);
    for call in [Call::Fdatasync, Call::Write] {
        ensure!(succeeds(call)?, "it fails already");
        preload.fail(call, true)?;
        ensure!(!succeeds(call)?, "{}: it does not fail", call.name());
        ensure!(succeeds(call)?, "{}: once is not once", call.name());
        preload.fail(call, false)?;
        ensure!(!succeeds(call)? && !succeeds(call)?, "{}: it does not go on", call.name());
        preload.mend(call)?;
        ensure!(succeeds(call)?, "{}: it still fails", call.name());
        ensure!(preload.failed(call)? >= 3, "{} failed {}", call.name(), preload.failed(call)?);
    }
    // Beside a library that does nothing when a sync is asked for, only writes can fail.
    for (call, can_fail) in [(Call::Fdatasync, false), (Call::Write, true)] {
        preload.fail(call, false)?;
        let succeeds = succeeds_with(call, Some("libeatmydata.so"))?;
        ensure!(succeeds != can_fail, "{} beside another library", call.name());
        preload.mend(call)?;
    }
    Ok(())
}
