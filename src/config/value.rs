//! What stands after the equals sign: sizes, durations, shares, addresses, networks, names.
//!
//! Every quantity carries its unit in the file, so that no reader has to guess. Pure.

use std::fmt;
use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::ops::RangeInclusive;
use std::path::{Path, PathBuf};
use std::str::FromStr;
use std::time::Duration;

use toml::de::DeValue;

use crate::dicom::{AeTitle, is_uid};
use crate::intake::Network;

/// Why a value cannot be taken, and what would do.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Wrong {
    pub(super) what: String,
    pub(super) advice: String,
}

pub(super) fn wrong(what: impl Into<String>, advice: impl Into<String>) -> Wrong {
    Wrong { what: what.into(), advice: advice.into() }
}

/// What a value is, for messages.
fn kind(value: &DeValue<'_>) -> &'static str {
    match value {
        DeValue::String(_) => "text",
        DeValue::Integer(_) => "a whole number",
        DeValue::Float(_) => "a number with a fraction",
        DeValue::Boolean(_) => "true or false",
        DeValue::Datetime(_) => "a date",
        DeValue::Array(_) => "a list",
        DeValue::Table(_) => "a table",
    }
}

pub(super) fn mismatch(value: &DeValue<'_>, wanted: &str) -> Wrong {
    wrong(format!("is {}", kind(value)), format!("write {wanted}"))
}

pub(super) fn text(value: &DeValue<'_>) -> Result<String, Wrong> {
    match value {
        DeValue::String(s) if s.is_empty() => Err(wrong("is empty", "write some text")),
        DeValue::String(s) => Ok(s.to_string()),
        other => Err(mismatch(other, "text in quotes")),
    }
}

fn quoted<T>(
    value: &DeValue<'_>,
    wanted: &str,
    parse: impl FnOnce(&str) -> Option<T>,
) -> Result<T, Wrong> {
    let DeValue::String(s) = value else { return Err(mismatch(value, wanted)) };
    parse(s).ok_or_else(|| wrong(format!("\"{s}\" cannot be read"), format!("write {wanted}")))
}

pub(super) fn boolean(value: &DeValue<'_>) -> Result<bool, Wrong> {
    match value {
        DeValue::Boolean(b) => Ok(*b),
        other => Err(mismatch(other, "true or false, without quotes")),
    }
}

/// A whole number within `range`.
pub(super) fn count(range: RangeInclusive<u32>) -> impl Fn(&DeValue<'_>) -> Result<u32, Wrong> {
    move |value| {
        let wanted = format!("a whole number from {} to {}", range.start(), range.end());
        let DeValue::Integer(n) = value else { return Err(mismatch(value, &wanted)) };
        u32::from_str_radix(n.as_str(), n.radix())
            .ok()
            .filter(|n| range.contains(n))
            .ok_or_else(|| wrong(format!("{n} is out of range"), format!("write {wanted}")))
    }
}

/// Anything that reads itself from text, such as names.
pub(super) fn parsed<T: FromStr<Err: fmt::Display>>(value: &DeValue<'_>) -> Result<T, Wrong> {
    let s = text(value)?;
    s.parse().map_err(|e| wrong(format!("\"{s}\" cannot be taken"), format!("{e}")))
}

/// One of several words.
pub(super) fn word<T: Copy>(
    words: &'static [(&'static str, T)],
) -> impl Fn(&DeValue<'_>) -> Result<T, Wrong> {
    move |value| {
        let all: Vec<_> = words.iter().map(|(word, _)| format!("\"{word}\"")).collect();
        quoted(value, &all.join(" or "), |s| {
            words.iter().find(|(word, _)| *word == s).map(|(_, meaning)| *meaning)
        })
    }
}

fn number_and_unit(s: &str) -> Option<(u64, &str)> {
    let s = s.trim();
    let end = s.find(|c: char| !c.is_ascii_digit())?;
    Some((s[..end].parse().ok()?, s[end..].trim_start()))
}

const SIZE_UNITS: [(&str, u64); 9] = [
    ("TiB", 1 << 40),
    ("GiB", 1 << 30),
    ("MiB", 1 << 20),
    ("KiB", 1 << 10),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
    ("MB", 1_000_000),
    ("kB", 1_000),
    ("B", 1),
];

fn parse_size(s: &str) -> Option<u64> {
    let (number, unit) = number_and_unit(s)?;
    let (_, factor) = SIZE_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor)
}

/// Bytes within `range`.
pub(super) fn size(range: RangeInclusive<u64>) -> impl Fn(&DeValue<'_>) -> Result<u64, Wrong> {
    move |value| {
        let bytes = quoted(value, "a size such as \"64 MiB\"", parse_size)?;
        if range.contains(&bytes) {
            return Ok(bytes);
        }
        let (low, high) = (show_size(*range.start()), show_size(*range.end()));
        Err(wrong(format!("{} is out of range", show_size(bytes)), format!("from {low} to {high}")))
    }
}

/// Bytes in the largest binary unit that leaves no remainder.
pub(super) fn show_size(bytes: u64) -> String {
    let binary = &SIZE_UNITS[..4];
    match binary.iter().find(|(_, factor)| bytes > 0 && bytes.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{} {unit}", bytes / factor),
        None => format!("{bytes} B"),
    }
}

const TIME_UNITS: [(&str, u64); 4] = [("d", 86_400), ("h", 3_600), ("m", 60), ("s", 1)];

fn parse_duration(s: &str) -> Option<Duration> {
    let (number, unit) = number_and_unit(s)?;
    let (_, factor) = TIME_UNITS.iter().find(|(name, _)| *name == unit)?;
    number.checked_mul(*factor).map(Duration::from_secs)
}

/// A time of at least `min` and at most ten years.
pub(super) fn duration_from(min: Duration) -> impl Fn(&DeValue<'_>) -> Result<Duration, Wrong> {
    const MAX: Duration = Duration::from_secs(3_660 * 86_400);
    move |value| {
        let time = quoted(value, "a time such as \"30s\", \"5m\", \"24h\" or \"400d\"", |s| {
            parse_duration(s)
        })?;
        if (min..=MAX).contains(&time) {
            return Ok(time);
        }
        let (low, high) = (show_duration(min), show_duration(MAX));
        Err(wrong(
            format!("{} is out of range", show_duration(time)),
            format!("from {low} to {high}"),
        ))
    }
}

/// A time of at least a second.
pub(super) fn duration(value: &DeValue<'_>) -> Result<Duration, Wrong> {
    duration_from(Duration::from_secs(1))(value)
}

/// A time in the largest unit that leaves no remainder.
pub(super) fn show_duration(time: Duration) -> String {
    let seconds = time.as_secs();
    match TIME_UNITS.iter().find(|(_, factor)| seconds > 0 && seconds.is_multiple_of(*factor)) {
        Some((unit, factor)) => format!("{}{unit}", seconds / factor),
        None => format!("{seconds}s"),
    }
}

fn parse_percent(s: &str) -> Option<u8> {
    let (number, unit) = number_and_unit(s)?;
    (unit == "%" && number <= 100).then_some(number as u8)
}

/// Whole percent within `range`.
pub(super) fn percent(range: RangeInclusive<u8>) -> impl Fn(&DeValue<'_>) -> Result<u8, Wrong> {
    move |value| {
        let wanted = format!("a share from \"{} %\" to \"{} %\"", range.start(), range.end());
        quoted(value, &wanted, |s| parse_percent(s).filter(|p| range.contains(p)))
    }
}

/// A part of the spool: of its capacity, or in bytes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Share {
    /// Percent of the capacity, 1 to 100.
    Percent(u8),
    /// Bytes.
    Bytes(u64),
}

impl Share {
    /// Bytes of a spool of `capacity` bytes.
    pub fn of(self, capacity: u64) -> u64 {
        match self {
            Self::Percent(percent) => {
                (u128::from(capacity) * u128::from(percent) / 100).try_into().unwrap_or(capacity)
            }
            Self::Bytes(bytes) => bytes.min(capacity),
        }
    }
}

impl fmt::Display for Share {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Percent(percent) => write!(f, "{percent} %"),
            Self::Bytes(bytes) => f.write_str(&show_size(*bytes)),
        }
    }
}

pub(super) fn share(value: &DeValue<'_>) -> Result<Share, Wrong> {
    quoted(value, "a share such as \"50 %\" or a size such as \"200 GiB\"", |s| {
        let percent = parse_percent(s).filter(|p| *p > 0).map(Share::Percent);
        percent.or_else(|| parse_size(s).filter(|b| *b > 0).map(Share::Bytes))
    })
}

pub(super) fn socket(value: &DeValue<'_>) -> Result<SocketAddr, Wrong> {
    quoted(value, "an address and a port such as \"0.0.0.0:11112\" or \"[::]:11112\"", |s| {
        s.parse().ok()
    })
}

/// Where to connect: a name or an address, and a port. Names are resolved at every attempt.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct HostPort {
    /// A DNS name or an IP address, the latter without brackets.
    pub host: String,
    /// TCP or UDP port, never 0.
    pub port: u16,
}

impl fmt::Display for HostPort {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "[{}]:{}", self.host, self.port),
            false => write!(f, "{}:{}", self.host, self.port),
        }
    }
}

fn is_host(host: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && label.bytes().all(|c| c.is_ascii_alphanumeric() || c == b'-' || c == b'_')
            && !label.starts_with('-')
    };
    let numeric = host.bytes().all(|c| c.is_ascii_digit() || c == b'.');
    host.len() <= 253
        && host.trim_end_matches('.').split('.').all(label)
        && (!numeric || host.parse::<Ipv4Addr>().is_ok())
}

fn parse_host_port(s: &str) -> Option<HostPort> {
    let (host, port) = s.rsplit_once(':')?;
    let port = port.parse().ok().filter(|port| *port != 0)?;
    let host = match host.strip_prefix('[').and_then(|h| h.strip_suffix(']')) {
        Some(v6) => v6.parse::<Ipv6Addr>().ok()?.to_string(),
        None => is_host(host).then(|| host.to_owned())?,
    };
    Some(HostPort { host, port })
}

pub(super) fn host_port(value: &DeValue<'_>) -> Result<HostPort, Wrong> {
    let wanted =
        "a name or address and a port such as \"pacs.example.org:104\" or \"10.2.0.5:104\"";
    quoted(value, wanted, parse_host_port)
}

/// An address alone, or a network such as `10.1.0.0/16`.
pub(super) fn network(value: &DeValue<'_>) -> Result<Network, Wrong> {
    parsed(value)
}

/// An AE title (PS3.5 6.2, VR AE); blanks around it do not count.
pub(super) fn ae_title(value: &DeValue<'_>) -> Result<AeTitle, Wrong> {
    parsed(value)
}

/// A UID (PS3.5 9.1).
pub(super) fn uid(value: &DeValue<'_>) -> Result<String, Wrong> {
    quoted(value, "a UID of digits and dots, at most 64 characters", |s| {
        is_uid(s).then(|| s.to_owned())
    })
}

/// What stands in a path for the folder in which systemd puts credentials.
pub(super) const CREDENTIALS: &str = "$CREDENTIALS_DIRECTORY";

/// What relative paths and `$CREDENTIALS_DIRECTORY` mean.
#[derive(Debug, Clone, Default)]
pub(super) struct Places {
    /// The folder of the configuration file.
    pub(super) base: PathBuf,
    /// Where systemd has put the credentials; `None` outside a service.
    pub(super) credentials: Option<PathBuf>,
}

/// A path; one to a credential stays as written while no credentials folder is known.
pub(super) fn path(value: &DeValue<'_>, places: &Places) -> Result<PathBuf, Wrong> {
    let s = text(value)?;
    if s.contains("-----BEGIN") {
        return Err(wrong("holds a key or certificate", "write the path of a file that holds it"));
    }
    if s.contains('\0') || s.contains('\n') {
        return Err(wrong("is no path", "write the path of a file or folder"));
    }
    match s.strip_prefix(CREDENTIALS) {
        Some(rest) if rest.starts_with('/') => Ok(match &places.credentials {
            Some(folder) => folder.join(rest.trim_start_matches('/')),
            None => PathBuf::from(s),
        }),
        _ if s.starts_with('$') => Err(wrong(
            format!("\"{s}\" begins with a variable"),
            format!("only {CREDENTIALS}/… is known"),
        )),
        _ => Ok(places.base.join(Path::new(&s))),
    }
}

#[cfg(test)]
mod tests {
    use std::borrow::Cow;

    use proptest::prelude::*;

    use super::*;

    fn s(text: &str) -> DeValue<'_> {
        DeValue::String(Cow::Borrowed(text))
    }

    #[test]
    fn a_size_needs_its_unit_and_may_not_overflow() {
        let any = size(0..=u64::MAX);
        assert_eq!(any(&s("64 MiB")), Ok(64 << 20));
        assert_eq!(any(&s("4GiB")), Ok(4 << 30));
        assert_eq!(any(&s("10 GB")), Ok(10_000_000_000));
        for bad in ["64", "", "MiB", "1.5 GiB", "-1 B", "64 mib", "99999999999999 TiB"] {
            assert!(any(&s(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_time_needs_its_unit() {
        assert_eq!(duration(&s("5m")), Ok(Duration::from_secs(300)));
        assert_eq!(duration(&s("400 d")), Ok(Duration::from_secs(400 * 86_400)));
        for bad in ["5", "5 min", "0s", "99999d", "h"] {
            assert!(duration(&s(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_host_and_port_can_be_a_name_or_an_address_of_either_family() {
        for good in ["pacs:104", "10.2.0.5:104", "[2001:db8::1]:104", "reading.example.jp:4433"] {
            assert_eq!(host_port(&s(good)).unwrap().to_string(), good);
        }
        for bad in ["pacs", "pacs:0", ":104", "10.2.0.256:104", "a b:1", "2001:db8::1:104", "a/b:1"]
        {
            assert!(host_port(&s(bad)).is_err(), "{bad}");
        }
    }

    #[test]
    fn a_share_of_a_spool_is_percent_or_bytes_and_never_more_than_the_spool() {
        assert_eq!(share(&s("50 %")).unwrap().of(1000), 500);
        assert_eq!(share(&s("1 GiB")).unwrap().of(1000), 1000);
        assert_eq!(Share::Percent(100).of(u64::MAX), u64::MAX);
        assert!(share(&s("0 %")).is_err());
        assert!(share(&s("101%")).is_err());
    }

    #[test]
    fn a_path_is_relative_to_the_file_and_never_a_secret_itself() {
        let mut places = Places { base: "/etc/hikyaku".into(), credentials: None };
        assert_eq!(path(&s("node.key"), &places), Ok("/etc/hikyaku/node.key".into()));
        assert_eq!(path(&s("/x/y"), &places), Ok("/x/y".into()));
        let credential = "$CREDENTIALS_DIRECTORY/node.key";
        assert_eq!(path(&s(credential), &places), Ok(credential.into()));
        places.credentials = Some("/run/credentials/h".into());
        assert_eq!(path(&s(credential), &places), Ok("/run/credentials/h/node.key".into()));
        assert!(path(&s("$HOME/node.key"), &places).is_err());
        assert!(path(&s("-----BEGIN PRIVATE KEY-----"), &places).is_err());
    }

    proptest! {
        #[test]
        fn sizes_and_times_are_shown_as_they_can_be_read(n in 0u64..1 << 50) {
            prop_assert_eq!(parse_size(&show_size(n)), Some(n));
            let time = Duration::from_secs(n);
            prop_assert_eq!(parse_duration(&show_duration(time)), Some(time));
        }

        #[test]
        fn no_text_panics(text in ".{0,80}") {
            let value = s(&text);
            let _ = (network(&value), host_port(&value), share(&value), duration(&value));
            let _ = (ae_title(&value), uid(&value), path(&value, &Places::default()));
        }
    }
}
