//! Network namespaces and TUN devices.

use std::fs::{self, File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::path::Path;
use std::process::Command;
use std::thread;

use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sched::{CloneFlags, setns};

/// Name of the device in both namespaces.
const DEVICE: &str = "wan0";

/// A network namespace; removed on drop when this program made it.
#[derive(Debug)]
pub struct Namespace {
    name: String,
    made: bool,
}

fn ip(args: &[&str]) -> io::Result<()> {
    match Command::new("ip").args(args).status()?.success() {
        true => Ok(()),
        false => Err(io::Error::other(format!("ip {} failed", args.join(" ")))),
    }
}

/// `struct ifreq` as TUNSETIFF reads it.
#[repr(C)]
pub struct Request {
    name: [u8; 16],
    flags: i16,
    rest: [u8; 22],
}

const IFF_TUN: i16 = 0x0001;
const IFF_NO_PI: i16 = 0x1000;
nix::ioctl_write_ptr_bad!(tun_set_iff, 0x4004_54ca, Request);

fn open_device() -> io::Result<File> {
    let file = OpenOptions::new().read(true).write(true).open("/dev/net/tun")?;
    let mut request = Request { name: [0; 16], flags: IFF_TUN | IFF_NO_PI, rest: [0; 22] };
    request.name[..DEVICE.len()].copy_from_slice(DEVICE.as_bytes());
    // SAFETY: TUNSETIFF reads one `struct ifreq` of 40 bytes, which `Request` is, and keeps no
    // pointer to it.
    unsafe { tun_set_iff(file.as_raw_fd(), &request) }?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_NONBLOCK))?;
    Ok(file)
}

impl Namespace {
    /// Finds or makes it.
    pub fn open(name: &str) -> io::Result<Self> {
        let made = !Path::new("/run/netns").join(name).exists();
        if made {
            ip(&["netns", "add", name])?;
        }
        Ok(Self { name: name.to_owned(), made })
    }

    /// Makes the device, with its address, and brings it up. It goes when the file is closed.
    pub fn tun(&self, address: &str, mtu: usize, tcp: Option<&str>) -> io::Result<File> {
        let namespace = File::open(Path::new("/run/netns").join(&self.name))?;
        let inside = move || {
            setns(namespace, CloneFlags::CLONE_NEWNET)?;
            if let Some(tcp) = tcp {
                fs::write("/proc/sys/net/ipv4/tcp_congestion_control", tcp)?;
            }
            open_device()
        };
        // A thread of its own, because a thread cannot easily come back.
        let file = thread::scope(|scope| scope.spawn(inside).join().expect("no panic"))?;
        let (n, mtu) = (self.name.as_str(), mtu.to_string());
        ip(&["-n", n, "link", "set", "lo", "up"])?;
        ip(&["-n", n, "addr", "add", address, "dev", DEVICE])?;
        ip(&["-n", n, "link", "set", DEVICE, "mtu", &mtu, "txqueuelen", "10000", "up"])?;
        Ok(file)
    }
}

impl Drop for Namespace {
    fn drop(&mut self) {
        if self.made {
            let _ = ip(&["netns", "del", &self.name]);
        }
    }
}
