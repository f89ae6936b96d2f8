//! Runs the binary in a folder of its own, with nothing of the caller's environment.

use std::io::Write;
use std::path::Path;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use crate::double::Double;

/// A message id for sends whose output must always be the same.
pub(crate) const ID: &str = "019a0000-0000-7000-8000-000000000001";

/// What a run gave.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: i32,
    pub(crate) out: String,
    pub(crate) err: String,
}

/// Where the binary is run.
pub(crate) struct Rig {
    folder: TempDir,
}

impl Rig {
    pub(crate) fn new() -> Rig {
        Rig { folder: TempDir::new().expect("a folder") }
    }

    pub(crate) fn path(&self) -> &Path {
        self.folder.path()
    }

    /// Runs it as it is, with an empty standard input.
    pub(crate) fn bare(&self, words: &[&str]) -> Run {
        self.with_input(words, b"")
    }

    /// Runs it against these gateways, with a token.
    pub(crate) fn run(&self, gateways: &[&Double], words: &[&str]) -> Run {
        let endpoints: Vec<_> = gateways.iter().map(|it| it.address.to_string()).collect();
        let connection = ["--endpoint", &endpoints.join(","), "--token", "a.b.c"];
        self.bare(&[&connection, words].concat())
    }

    /// Starts it.
    pub(crate) fn start(&self, words: &[&str]) -> Child {
        self.command(words).spawn().expect("it starts")
    }

    /// How it is started; the folder for state is this one.
    pub(crate) fn command(&self, words: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_tidemark"));
        command.args(words).current_dir(self.path()).env_clear();
        command.env("XDG_STATE_HOME", self.path());
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        command
    }

    pub(crate) fn with_input(&self, words: &[&str], input: &[u8]) -> Run {
        let mut process = self.start(words);
        // A process that refuses its arguments does not read.
        let _ = process.stdin.take().expect("piped").write_all(input);
        let done = process.wait_with_output().expect("it ends");
        let text = |bytes| String::from_utf8(bytes).expect("UTF-8");
        let code = done.status.code().expect("it exits");
        Run { code, out: text(done.stdout), err: text(done.stderr) }
    }
}
