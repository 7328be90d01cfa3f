//! Hostile DICOM against the real binary. After each attack the node lives, serves others, has
//! grown by no more than a bound, and has written nothing outside its own folder.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use crate::attack::{
    Attacker, CT, DEFLATED, EXPLICIT, Heard, IMPLICIT, Request, claiming, context, data, echo,
    element, identifiers, item, lying_item, pdu, pdv, store_command, uid,
};
use crate::site::{Node, Plan, Port, Site, until};

/// Most KiB by which one attack may make a node grow. A debug build's first buffers are in it.
const GROWTH_MAX: u64 = 24 << 10;

/// A node with a folder destination, and how it was before the attack.
struct Victim {
    node: Node,
    outside: BTreeSet<PathBuf>,
    resident: u64,
    site: Site,
}

impl Victim {
    fn new() -> Self {
        Self::with(|plan| plan)
    }

    fn with(change: impl FnOnce(Plan) -> Plan) -> Self {
        let site = Site::new();
        let plan = site.lone().folder_destination("out").route_all("out");
        let limits = "artim = \"5s\"\ndimse = \"20s\"";
        let node = change(plan.set("dicom.limits", limits)).start();
        // What every node grows by at its first association is no harm.
        assert!(echo(node.port(Port::Dicom)));
        forget_peak(&node);
        let resident = memory(&node, "VmRSS:");
        let mut victim = Self { node, outside: BTreeSet::new(), resident, site };
        victim.outside = victim.files_outside();
        victim
    }

    fn port(&self) -> u16 {
        self.node.port(Port::Dicom)
    }

    /// Every path of the site that is not the node's own folder or its destination.
    fn files_outside(&self) -> BTreeSet<PathBuf> {
        let all = files(self.site.path());
        let own = [self.node.data(), self.site.path().join("out")];
        all.into_iter().filter(|p| !own.iter().any(|own| p.starts_with(own))).collect()
    }

    /// The node is as well as before.
    fn is_unharmed(&self) {
        assert!(self.node.ended().is_none(), "the node has ended");
        assert!(echo(self.port()), "a genuine echo is not answered");
        let grown = memory(&self.node, "VmHWM:").saturating_sub(self.resident);
        assert!(grown <= GROWTH_MAX, "the node has grown by {grown} KiB");
        assert_eq!(self.files_outside(), self.outside, "files beside the node's folder");
        for path in files(&self.node.data()) {
            let name = path.file_name().expect("a name").to_string_lossy();
            assert!(!name.contains("pwn"), "a peer's name on the disk: {}", path.display());
        }
    }

    /// One C-STORE of this data set in Implicit VR Little Endian.
    fn store(&self, sop_class: &str, sop_instance: &str, data_set: &[u8]) -> Heard {
        let mut attacker = Attacker::associated(self.port(), sop_class, IMPLICIT);
        let command = store_command(sop_class.as_bytes(), sop_instance.as_bytes());
        attacker.store(&command, data_set)
    }

    /// The files that the folder destination has, once there are so many.
    fn delivered(&self, n: u64) -> Vec<Vec<u8>> {
        self.node.wait_count("out", "receipted", n);
        let all = files(&self.site.path().join("out"));
        let images = all.iter().filter(|p| p.extension().is_some_and(|e| e == "dcm"));
        images.map(|p| fs::read(p).expect("a delivered file")).collect()
    }
}

/// All files below a folder. One that vanishes meanwhile is none.
fn files(folder: &Path) -> BTreeSet<PathBuf> {
    let mut found = BTreeSet::new();
    let mut folders = vec![folder.to_owned()];
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).into_iter().flatten().flatten() {
            let path = entry.path();
            if path.is_dir() {
                folders.push(path);
            } else {
                found.insert(path);
            }
        }
    }
    found
}

/// A line of /proc/PID/status, in KiB.
fn memory(node: &Node, line: &str) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", node.pid())).expect("a process");
    let line = status.lines().find_map(|l| l.strip_prefix(line)).expect("a line");
    line.split_ascii_whitespace().next().and_then(|n| n.parse().ok()).expect("KiB")
}

/// VmHWM counts from here (proc(5), clear_refs).
fn forget_peak(node: &Node) {
    fs::write(format!("/proc/{}/clear_refs", node.pid()), "5").expect("a process of ours");
}

fn scale(name: &str, default: usize) -> usize {
    std::env::var(name).map_or(default, |n| n.parse().expect("a number"))
}

#[test]
fn lengths_that_lie_end_the_connection_and_reserve_nothing() {
    let victim = Victim::new();
    let request = Request::echo().encode();
    let body = &request[6..];
    let overlong_user = item(0x58, &[&[2, 1][..], &60_000u16.to_be_bytes(), b"u"].concat());
    let lie = |at: usize| {
        let mut lie = body.to_vec();
        lie[at..at + 2].copy_from_slice(&[0xff, 0xff]);
        pdu(1, &lie)
    };
    let mut user = Request::echo();
    user.user.push(overlong_user);
    let mut nested = Request::echo();
    nested.items.push(lying_item(0x20, 0xfff0, &[3, 0, 0, 0]));
    let lies = [
        ("a PDU of 4 GiB", claiming(1, u32::MAX, &[b'A'; 4096])),
        ("a P-DATA of 4 GiB before any association", claiming(4, u32::MAX, &[0; 4096])),
        ("an unknown PDU", pdu(0x99, &[b'x'; 20])),
        ("an application context of 64 KiB", lie(68 + 2)),
        ("a presentation context of 64 KiB", nested.encode()),
        ("a user identity of 60 kB", user.encode()),
        ("an empty request", pdu(1, &[])),
        ("a request that ends within an AE title", pdu(1, &body[..20])),
        ("HTTP", b"GET / HTTP/1.1\r\nHost: x\r\n\r\n".to_vec()),
    ];
    for (what, bytes) in lies {
        let mut attacker = Attacker::connect(victim.port());
        attacker.say(&bytes);
        let answer = attacker.hear_out();
        assert!(matches!(answer, Heard::Abort | Heard::Reject(..)), "{what}: {answer:?}");
        victim.is_unharmed();
    }
}

#[test]
fn a_flood_of_contexts_is_answered_within_what_the_standard_can_number() {
    let victim = Victim::new();
    let syntaxes: Vec<_> = (0..1500).map(|n| format!("1.2.840.10008.1.2.4.{n}")).collect();
    let syntaxes: Vec<_> = syntaxes.iter().map(String::as_str).collect();
    let all: Vec<_> = (0..=255).map(|id| context(id, CT, &[EXPLICIT])).collect();
    let floods = [
        ("1,500 transfer syntaxes", Request::new(&[context(1, CT, &syntaxes)])),
        ("256 contexts, odd and even", Request::new(&all)),
        ("2,560 contexts", Request::new(&vec![all.concat(); 10])),
        ("even and duplicate numbers", {
            let ids = [2, 2, 1, 1, 0, 255];
            Request::new(&ids.map(|id| context(id, CT, &[EXPLICIT])))
        }),
        ("no contexts", Request::new(&[])),
        ("200 SOP classes without a syntax", {
            let none: Vec<_> = (0..100).map(|n| context(n * 2 + 1, CT, &[])).collect();
            Request::new(&none)
        }),
    ];
    for (what, request) in floods {
        let mut attacker = Attacker::connect(victim.port());
        attacker.say(&request.encode());
        assert_eq!(attacker.hear(), Heard::Accept, "{what}");
        attacker.say(&pdu(5, &[0; 4]));
        assert_eq!(attacker.hear(), Heard::Release, "{what}");
        victim.is_unharmed();
    }
    let mut request = Request::echo();
    request.items = vec![request.items[0].clone(); 50_000];
    let mut attacker = Attacker::connect(victim.port());
    attacker.say(&request.encode());
    assert_eq!(attacker.hear_out(), Heard::Abort, "a request of 1 MB and more");
    victim.is_unharmed();
}

#[test]
fn a_peer_that_allows_no_or_one_byte_is_served_all_the_same() {
    let victim = Victim::new();
    for max in [0u32, 1, 7, u32::MAX] {
        let mut request = Request::new(&[context(1, CT, &[IMPLICIT])]);
        request.user = vec![item(0x51, &max.to_be_bytes())];
        let mut attacker = Attacker::connect(victim.port());
        attacker.say(&request.encode());
        assert_eq!(attacker.hear(), Heard::Accept);
        let command = store_command(CT.as_bytes(), b"9.9.9");
        attacker.say(&data(1, 3, &command));
        attacker.say(&data(1, 2, &identifiers(CT.as_bytes(), b"1.2.3")));
        let heard = attacker.hear();
        // In pieces of a few bytes no status stands whole in any of them.
        assert!(matches!(heard, Heard::Status(0xA900) | Heard::Piece), "{max}: {heard:?}");
        victim.is_unharmed();
    }
}

#[test]
fn values_that_lie_about_their_length_or_context_abort_the_association() {
    let victim = Victim::new();
    let lying =
        |length: u32| [&length.to_be_bytes()[..], &[1, 3], b"xxxxxxxxxxxxxxxxxxxx"].concat();
    let lies = [
        ("2 GiB in a PDU of 26 bytes", pdu(4, &lying(0x7fff_ffff))),
        ("one byte longer than its PDU", pdu(4, &lying(23))),
        ("a length of zero", pdu(4, &[0; 4])),
        ("a length of one", pdu(4, &[0, 0, 0, 1, 1])),
        ("an empty PDU", pdu(4, &[])),
        ("a context that nobody has", pdu(4, &pdv(77, 3, b"xxxx"))),
        ("a P-DATA of 4 GiB", claiming(4, u32::MAX, &pdv(1, 1, &[0; 1000]))),
        ("a data set without a command", data(1, 2, b"xxxx")),
        ("a command set of zeros", data(1, 3, &[0; 64])),
        ("an element of 4 GiB in a command set", {
            data(1, 3, &[&[0, 0, 2, 0][..], &[0xff; 4], b"1.2"].concat())
        }),
        ("a second request", Request::echo().encode()),
    ];
    for (what, bytes) in lies {
        let mut attacker = Attacker::associated(victim.port(), CT, IMPLICIT);
        attacker.say(&bytes);
        assert_eq!(attacker.hear_out(), Heard::Abort, "{what}");
        victim.is_unharmed();
    }
}

#[test]
fn more_than_was_negotiated_is_streamed_and_costs_no_memory() {
    let victim = Victim::new();
    let mut attacker = Attacker::associated(victim.port(), CT, IMPLICIT);
    let command = store_command(CT.as_bytes(), b"1.2.3.40");
    let image =
        [identifiers(CT.as_bytes(), b"1.2.3.40"), element(0x7fe0, 0x10, &vec![7; 15 << 20])]
            .concat();
    attacker.say(&data(1, 3, &command));
    attacker.say(&data(1, 2, &image));
    assert_eq!(attacker.hear(), Heard::Status(0), "15 MiB in one PDU");
    let delivered = victim.delivered(1);
    assert!(delivered[0].ends_with(&image));
    // Beyond any sense, it is a lie.
    attacker.say(&claiming(4, 17 << 20, &pdv(1, 3, b"xx")));
    assert_eq!(attacker.hear_out(), Heard::Abort);
    // Delivery reads a megabyte at a time, custody has gathered four.
    assert!(victim.node.ended().is_none() && echo(victim.port()));
    let grown = memory(&victim.node, "VmHWM:").saturating_sub(victim.resident);
    assert!(grown < 64 << 10, "the node has grown by {grown} KiB");
}

#[test]
fn an_endless_command_set_is_cut_within_64_kib() {
    let victim = Victim::new();
    let mut attacker = Attacker::associated(victim.port(), CT, IMPLICIT);
    for _ in 0..4 {
        assert!(attacker.say(&data(1, 1, &[0; 16_000])));
    }
    attacker.say(&data(1, 1, &[0; 16_000]));
    assert_eq!(attacker.hear_out(), Heard::Abort);
    victim.is_unharmed();
}

#[test]
fn sixty_thousand_nested_sequences_are_stored_as_they_are() {
    let victim = Victim::new();
    let mut level = element(8, 0x1140, &[]);
    level[4..].copy_from_slice(&[0xff; 4]);
    level.extend([0xfe, 0xff, 0, 0xe0, 0xff, 0xff, 0xff, 0xff]);
    let nested = [identifiers(CT.as_bytes(), b"1.2.3.7"), level.repeat(60_000)].concat();
    assert_eq!(victim.store(CT, "1.2.3.7", &nested), Heard::Status(0));
    assert!(victim.delivered(1)[0].ends_with(&nested));
    let explained = victim.node.cli(&["studies"]);
    assert!(explained.status.success());
    victim.is_unharmed();
}

#[test]
fn pixels_that_lie_about_themselves_are_never_looked_at() {
    let victim = Victim::new();
    let lies = [
        element(0x28, 2, &[0xff, 0xff]),
        element(0x28, 8, b"4294967295 "),
        element(0x28, 0x10, &[0xff; 4]),
        element(0x28, 0x11, &[0xff; 4]),
        element(0x28, 0x100, &[0xff, 0xff]),
        element(0x28, 0x1101, &[0xff; 6]),
        element(0x28, 0x1201, &[1; 2]),
        element(0x7fe0, 0x10, &[0; 8]),
    ];
    let image = [identifiers(CT.as_bytes(), b"1.2.3.8"), lies.concat()].concat();
    assert_eq!(victim.store(CT, "1.2.3.8", &image), Heard::Status(0));
    assert!(victim.delivered(1)[0].ends_with(&image));
    // An element that reaches beyond the data set is kept and flagged, not followed.
    let mut beyond = identifiers(CT.as_bytes(), b"1.2.3.9");
    beyond.extend([0x10, 0, 0x10, 0, 0xf0, 0xff, 0xff, 0xff, b'x']);
    assert_eq!(victim.store(CT, "1.2.3.9", &beyond), Heard::Status(0));
    victim.delivered(2);
    victim.is_unharmed();
}

#[test]
fn a_deflate_bomb_stays_deflated() {
    let victim = Victim::new();
    let syntax = [EXPLICIT, DEFLATED];
    let mut attacker = Attacker::connect(victim.port());
    attacker.say(&Request::new(&[context(1, CT, &syntax[1..])]).encode());
    assert_eq!(attacker.hear(), Heard::Accept);
    let mut bomb = flate2::write::DeflateEncoder::new(vec![], flate2::Compression::fast());
    let head = [
        &b"\x08\0\x16\0UI\x1a\0"[..],
        b"1.2.840.10008.5.1.4.1.1.2\0",
        b"\x08\0\x18\0UI\x08\x001.2.3.10",
        b"\x08\0\x60\0CS\x02\0CT",
        b"\x10\0\x10\0UN\0\0\0\0\0\x78",
    ];
    bomb.write_all(&head.concat()).expect("memory");
    for _ in 0..2000 {
        bomb.write_all(&[0; 1 << 20]).expect("memory");
    }
    let bomb = bomb.finish().expect("memory");
    let command = store_command(CT.as_bytes(), b"1.2.3.10");
    assert_eq!(attacker.store(&command, &bomb), Heard::Status(0), "{} bytes", bomb.len());
    assert!(victim.delivered(1)[0].ends_with(&bomb));
    assert_eq!(victim.node.cli(&["studies"]).status.code(), Some(0));
    let grown = memory(&victim.node, "VmHWM:").saturating_sub(victim.resident);
    assert!(grown < 64 << 10, "2 GB of nothing made the node grow by {grown} KiB");
    assert!(echo(victim.port()));
}

/// Row 24; `HIKYAKU_LORIS=5000` opens as many. The genuine peer comes from the same address.
#[test]
fn peers_that_say_nothing_keep_nobody_out() {
    let victim = Victim::new();
    let mut silent = Vec::new();
    for n in 0..scale("HIKYAKU_LORIS", 200) {
        let Ok(mut attacker) = Attacker::try_connect(victim.port()) else { break };
        attacker.say(&[1, 0, 0][..n % 4]);
        silent.push(attacker);
        if n % 50 == 0 {
            assert!(echo(victim.port()), "no echo beside {n} silent peers");
        }
    }
    assert!(silent.len() >= 200, "{} connections", silent.len());
    victim.is_unharmed();
    // A request byte by byte is overtaken by ARTIM.
    let mut slow = Attacker::connect(victim.port());
    let request = Request::echo().encode();
    let mut said = 0;
    while said < request.len() && slow.say(&request[said..=said]) {
        said += 1;
        thread::sleep(Duration::from_millis(200));
    }
    assert!(said < request.len(), "a request of {said} bytes may take a minute");
    assert_eq!(slow.hear_out(), Heard::Closed);
    victim.is_unharmed();
}

/// Row 25; `HIKYAKU_OPENINGS=10000` opens as many.
#[test]
fn opening_and_closing_leaves_nothing_behind() {
    let victim = Victim::new();
    let round = scale("HIKYAKU_OPENINGS", 1500) / 3;
    let mut sizes = Vec::new();
    for _ in 0..3 {
        for n in 0..round {
            match n % 3 {
                0 => assert!(echo(victim.port())),
                1 => drop(Attacker::connect(victim.port())),
                _ => drop(Attacker::associated(victim.port(), CT, IMPLICIT)),
            }
        }
        until("all connections are gone", || {
            victim.node.metric("hikyaku_associations", &[]) == 0.0
        });
        sizes.push(memory(&victim.node, "VmRSS:"));
    }
    // The first round fills pools; after it, less than a KiB for each opening is noise.
    let grown = sizes[2].saturating_sub(sizes[0]);
    assert!(grown < 2 << 10, "{sizes:?} KiB after rounds of {round}");
    victim.is_unharmed();
}

#[test]
fn identifiers_that_are_paths_or_worse_are_refused_and_name_nothing() {
    let victim = Victim::new();
    let long = "1.".repeat(200) + "1";
    let names = [
        "../../../tmp/hikyaku-pwn",
        "/tmp/hikyaku-pwn",
        "..",
        "1.2/../pwn",
        "1.2.3\npwn",
        "1.2.3\0pwn",
        "1.2.3;touch pwn",
        "$(touch pwn)",
        "",
        &long,
    ];
    for name in names {
        let image = [
            identifiers(CT.as_bytes(), name.as_bytes()),
            uid(0x20, 0xd, name.as_bytes()),
            element(0x7fe0, 0x10, &[0; 8]),
        ];
        let heard = victim.store(CT, name, &image.concat());
        assert_eq!(heard, Heard::Status(0x0117), "{name:?}");
    }
    // 65 characters are no UID, but devices in the field send worse: kept, under a name of ours.
    let odd = format!("1.2.{}", "3".repeat(61));
    let study = "../../../tmp/hikyaku-pwn";
    let image = [identifiers(CT.as_bytes(), odd.as_bytes()), uid(0x20, 0xd, study.as_bytes())];
    assert_eq!(victim.store(CT, &odd, &image.concat()), Heard::Status(0));
    victim.delivered(1);
    for path in files(&victim.site.path().join("out")) {
        let name = path.file_stem().expect("a name").to_string_lossy();
        assert!(name.chars().all(|c| c.is_ascii_hexdigit()), "{}", path.display());
    }
    assert!(!Path::new("/tmp/hikyaku-pwn").exists());
    victim.is_unharmed();
}

#[test]
fn an_ae_title_that_is_a_path_or_a_command_is_rejected_or_only_a_text() {
    let victim = Victim::new();
    for called in
        [&b".."[..], b"../HIKYAKU", b"HIKYAKU\0/etc", b"$(reboot)", b"a;b|c", b"", b"\xff"]
    {
        let mut request = Request::echo();
        request.called = called.to_vec();
        let mut attacker = Attacker::connect(victim.port());
        attacker.say(&request.encode());
        assert_eq!(attacker.hear_out(), Heard::Reject(1, 1, 7), "{called:?}");
    }
    for calling in [&b"A\n\x1b[2J<script>"[..], b"\0\0\0\0", b"A\\B", b"\x80\x81", b""] {
        let mut request = Request::echo();
        request.calling = calling.to_vec();
        let mut attacker = Attacker::connect(victim.port());
        attacker.say(&request.encode());
        assert_eq!(attacker.hear_out(), Heard::Reject(1, 1, 3), "{calling:?}");
    }
    victim.is_unharmed();
}

#[test]
fn terminal_controls_and_markup_reach_no_log_and_no_listing_unescaped() {
    for format in ["human", "json"] {
        let victim = Victim::with(|plan| plan.set("node.log", &format!("format = {format:?}")));
        let mut request = Request::new(&[context(1, CT, &[IMPLICIT])]);
        request.calling = b"<script>\"';`&".to_vec();
        let mut attacker = Attacker::connect(victim.port());
        attacker.say(&request.encode());
        assert_eq!(attacker.hear(), Heard::Accept);
        let evil = b"A^B\n\x1b]0;x\x07\r\nlevel=ERROR forged=yes<img src=x>";
        let image = [
            identifiers(CT.as_bytes(), b"1.2.3.11"),
            uid(8, 0x50, evil),
            uid(8, 0x60, b"C\x1b["),
            uid(0x10, 0x10, evil),
            uid(0x10, 0x20, evil),
            uid(0x20, 0xd, b"1.2.3\x1b[2J\n"),
        ];
        let command = store_command(CT.as_bytes(), b"1.2.3.11");
        assert_eq!(attacker.store(&command, &image.concat()), Heard::Status(0));
        victim.delivered(1);
        // Refusals say who they refuse.
        let mut stranger = Request::echo();
        stranger.calling = b"\x1b[31mRED\r\n".to_vec();
        let mut attacker = Attacker::connect(victim.port());
        attacker.say(&stranger.encode());
        assert_eq!(attacker.hear_out(), Heard::Reject(1, 1, 3));
        let log = victim.node.log();
        let listings = [
            victim.node.cli(&["studies"]),
            victim.node.cli(&["queue", "list"]),
            victim.node.cli(&["status"]),
        ];
        let pages = ["/status", "/metrics", "/health", "/ready"].map(|p| victim.node.page(p).1);
        let shown = listings.map(|l| String::from_utf8_lossy(&l.stdout).into_owned());
        for text in shown.iter().chain(&pages).chain([&log]) {
            let control = |c: char| c.is_control() && c != '\n';
            assert!(!text.contains(control), "{text:?}");
            assert!(!text.lines().any(|l| l.starts_with("level=ERROR")), "{text}");
        }
        for page in &pages {
            assert!(!page.contains("<script>") && !page.contains("<img"), "{page}");
            assert!(!page.contains("A^B"), "a patient's name on a page: {page}");
        }
        assert!(!log.contains("A^B"), "a patient's name in the log");
        victim.is_unharmed();
    }
}

#[test]
fn a_data_set_that_is_not_what_the_command_says_is_refused_and_noted() {
    let victim = Victim::new();
    let mr = b"1.2.840.10008.5.1.4.1.1.4";
    let cases = [
        ("another instance", identifiers(CT.as_bytes(), b"9.9.9"), 0xA900),
        ("another class", identifiers(mr, b"1.2.3.12"), 0xA900),
        ("nothing", vec![], 0xC000),
        ("no data set", b"GIF89a, perhaps".to_vec(), 0xC000),
    ];
    for (what, data_set, status) in cases {
        let mut attacker = Attacker::associated(victim.port(), CT, IMPLICIT);
        let command = store_command(CT.as_bytes(), b"1.2.3.12");
        let heard = match data_set.is_empty() {
            true => {
                attacker.say(&data(1, 3, &command));
                attacker.say(&data(1, 2, &[]));
                attacker.hear()
            }
            false => attacker.store(&command, &data_set),
        };
        assert_eq!(heard, Heard::Status(status), "{what}");
        let label = format!("status=\"{status:04X}\"");
        victim.node.reaches("hikyaku_store_answers_total", &[&label], 1.0);
        let noted = |l: &str| l.contains("C-STORE refused") && l.contains(&format!("{status:04X}"));
        until("the refusal is in the log", || victim.node.log().lines().any(noted));
    }
    assert_eq!(victim.node.status()["present"].as_u64().unwrap_or(0), 0);
    victim.is_unharmed();
}

/// Row 30: on the line there is no preamble, and the one of delivered files is ours.
#[test]
fn a_delivered_file_begins_with_zeros_whatever_was_sent() {
    let victim = Victim::new();
    let elf = [&b"\x7fELF\x02\x01\x01"[..], &[0x90; 121], b"DICM"].concat();
    let heard = victim.store(CT, "1.2.3.13", &elf);
    assert!(matches!(heard, Heard::Status(0xC000 | 0xA900 | 0)), "{heard:?}");
    let image = [identifiers(CT.as_bytes(), b"1.2.3.14"), elf].concat();
    assert_eq!(victim.store(CT, "1.2.3.14", &image), Heard::Status(0));
    until("a file", || !files(&victim.site.path().join("out")).is_empty());
    victim.node.wait_count("out", "owed", 0);
    for file in victim.delivered(victim.node.count("out", "receipted")) {
        assert_eq!(file[..128], [0; 128]);
        assert_eq!(&file[128..132], b"DICM");
    }
    victim.is_unharmed();
}
