//! wanlink: a line between two network namespaces.
//!
//! It opens a TUN device in each namespace and carries IP packets between them. Each direction is
//! a line of its own:
//!
//! ```text
//! read -> drop-tail queue -> paced at the line's rate -> random loss -> delay -> write
//! ```
//!
//! The queue is computed, not stored: a packet waits until the line is free, and is dropped when
//! that wait stands for more bytes than the queue holds. A lost packet has used the line. The loss
//! pattern is a function of the seed. SIGUSR1 begins a blackout, the next one ends it. SIGINT and
//! SIGTERM remove what was made.
//!
//! Limits: Linux, root, /dev/net/tun. It adds 0.1 to 0.3 ms to a round trip and uses about one
//! core at 1 Gbit/s.

mod line;
mod netns;

use std::io;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::{Duration, Instant};

use clap::Parser;
use nix::sys::signal::{SigSet, Signal};

use line::{Counts, Line};
use netns::Namespace;

/// Set when the program is to end.
pub static STOP: AtomicBool = AtomicBool::new(false);
/// Set while nothing gets through.
pub static BLACKOUT: AtomicBool = AtomicBool::new(false);

/// A line between two network namespaces; prints "ready" when packets can flow
#[derive(Debug, Parser)]
struct Args {
    /// Namespace at the near end; made, and removed again, when it is not there
    #[arg(long)]
    a: String,
    /// Namespace at the far end
    #[arg(long)]
    b: String,
    /// Address of the near end, with prefix length
    #[arg(long, default_value = "10.77.0.1/24")]
    a_address: String,
    /// Address of the far end, with prefix length
    #[arg(long, default_value = "10.77.0.2/24")]
    b_address: String,
    /// Delay of each direction, in milliseconds
    #[arg(long, default_value_t = 0.0)]
    delay_ms: f64,
    /// Rate of each direction, in Mbit/s of IP packets; 0 is unlimited
    #[arg(long, default_value_t = 0.0)]
    rate_mbit: f64,
    /// Random loss of each direction, in percent
    #[arg(long, default_value_t = 0.0)]
    loss: f64,
    /// Queue of each direction, in bytes; default: what the line holds in a round trip, at least 30000
    #[arg(long)]
    queue: Option<f64>,
    /// Seed of the loss pattern
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// TCP congestion control in both namespaces
    #[arg(long)]
    tcp: Option<String>,
}

const MTU: usize = 1500;

fn main() {
    if let Err(e) = run(&Args::parse()) {
        eprintln!("wanlink: {e}");
        std::process::exit(1);
    }
}

fn run(args: &Args) -> io::Result<()> {
    // Before any thread begins, so that only the thread below hears them.
    let mut heard = SigSet::empty();
    heard.extend([Signal::SIGINT, Signal::SIGTERM, Signal::SIGUSR1]);
    heard.thread_block()?;
    let (a, b) = (Namespace::open(&args.a)?, Namespace::open(&args.b)?);
    let near = a.tun(&args.a_address, MTU, args.tcp.as_deref())?;
    let far = b.tun(&args.b_address, MTU, args.tcp.as_deref())?;
    thread::spawn(move || {
        while let Ok(signal) = heard.wait() {
            match signal {
                Signal::SIGUSR1 => drop(BLACKOUT.fetch_xor(true, Ordering::Relaxed)),
                _ => STOP.store(true, Ordering::Relaxed),
            }
        }
    });
    let line = |seed| Line {
        bytes_per_second: args.rate_mbit * 125_000.0,
        delay: Duration::from_secs_f64(args.delay_ms / 1e3),
        loss: args.loss / 100.0,
        queue: args.queue.unwrap_or((args.rate_mbit * 250.0 * args.delay_ms).max(30e3)),
        seed,
    };
    let start = Instant::now();
    println!("ready");
    thread::scope(|scope| {
        let out = scope.spawn(|| line(args.seed * 2).carry(&near, &far, MTU, start));
        let back = scope.spawn(|| line(args.seed * 2 + 1).carry(&far, &near, MTU, start));
        for (way, counts) in [("there", out.join()), ("back", back.join())] {
            let Counts { sent, bytes, lost, dropped, dark } = counts.expect("no panic")?;
            eprintln!(
                "{way}: {sent} packets ({bytes} bytes), {lost} lost, {dropped} dropped by the \
                 queue, {dark} in blackouts"
            );
        }
        Ok(())
    })
}
