//! The server under load, and the processor time of its threads.

use std::io::{BufRead, BufReader};
use std::net::SocketAddr;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

pub(crate) const KEY: &str = "sk-bench-0123456789abcdefghijklmnopqrstuvwxyzABCD";

/// A running server. Killed when dropped.
pub(crate) struct Server {
    child: Child,
    address: SocketAddr,
}

impl Server {
    /// Serves `model` to so many at once; waits until it is ready.
    pub(crate) fn start(model: &str, streams: usize) -> Self {
        let mut child = Command::new(env!("CARGO_BIN_EXE_millrace"))
            .args(["serve", model, "--port", "0", "--log-level", "warn"])
            .args(["--max-num-seqs", &streams.to_string()])
            .env("MILLRACE_API_KEY", KEY)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
        let mut line_with = |part: &str| {
            lines.find_map(|line| line.ok().filter(|l| l.contains(part))).expect("it starts")
        };
        let listening = line_with("listening on http://");
        let (_, rest) = listening.split_once("http://").unwrap();
        let address = rest.split([',', ' ']).next().unwrap().parse().unwrap();
        line_with("ready to serve");
        // Nobody reads on: what it still says must find a pipe that is open.
        std::thread::spawn(move || lines.for_each(drop));
        Self { child, address }
    }

    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = (self.child.kill(), self.child.wait());
    }
}

/// Processor time of the threads of a process so far, by name.
pub(crate) struct CpuTimes(Vec<(String, Duration)>);

impl CpuTimes {
    /// Of the threads that live (Linux: `/proc/PID/task/TID/{comm,schedstat}`).
    pub(crate) fn of(pid: u32) -> Self {
        let tasks = std::fs::read_dir(format!("/proc/{pid}/task")).unwrap();
        let time = |task: std::fs::DirEntry| {
            let name = std::fs::read_to_string(task.path().join("comm")).ok()?;
            let stat = std::fs::read_to_string(task.path().join("schedstat")).ok()?;
            let ns = stat.split(' ').next()?.parse().ok()?;
            Some((name.trim().to_owned(), Duration::from_nanos(ns)))
        };
        Self(tasks.filter_map(|task| time(task.ok()?)).collect())
    }

    pub(crate) fn total(&self) -> Duration {
        self.0.iter().map(|(_, time)| time).sum()
    }

    /// Of the threads of this name.
    pub(crate) fn of_threads(&self, name: &str) -> Duration {
        self.0.iter().filter(|(n, _)| n == name).map(|(_, time)| time).sum()
    }
}
