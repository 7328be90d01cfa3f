//! The set-up guides, walked: the commands that stand in them are run, in their order, on two
//! machines that are folders. `sudo`, `systemctl` and their kin are stand-ins that do what they
//! would do there; everything else is real.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;

use crate::foreign::Storescp;
use crate::part10::{data, files};
use crate::ports;
use crate::site::{Site, run, text, until};

const HOSPITAL: &str = include_str!("../../docs/setting-up-a-hospital.md");
const READING: &str = include_str!("../../docs/setting-up-a-reading-centre.md");
const STUDY: &str = "1.2.840.113713.20.280023911736152577783328064041893667800";

/// Stand-ins, by name. `$ROOT` is the machine's folder.
const STAND_INS: [(&str, &str); 9] = [
    ("sudo", r#"exec "$@""#),
    ("sudoedit", r#"exec sed -i -f "$ROOT/edits" "$1""#),
    ("cargo", "exit 0"),
    ("sysctl", "exit 0"),
    ("systemd-sysusers", "exit 0"),
    ("systemd-tmpfiles", "exit 0"),
    (
        "install",
        r#"words=(); while [ $# -gt 0 ]; do
             if [ "$1" = -g ]; then shift 2; else words+=("$1"); shift; fi
           done; exec /usr/bin/install -D "${words[@]}""#,
    ),
    (
        "hikyaku",
        r#"real="$ROOT/usr/local/bin/hikyaku"; [ -x "$real" ] || real="$PROGRAM"
           case "$1" in
             pki) exec "$real" "$@" ;;
             check-config) "$real" "$@" || [ $? = 4 ] ;;  # outside the service there is a warning
             *) exec "$real" "$@" --config "$ROOT/etc/hikyaku/hikyaku.toml" ;;
           esac"#,
    ),
    (
        "systemctl",
        r#"case "$*" in
             daemon-reload) ;;
             "enable --now hikyaku")
               CREDENTIALS_DIRECTORY="$ROOT/etc/hikyaku" "$ROOT/usr/local/bin/hikyaku" run \
                 --config "$ROOT/etc/hikyaku/hikyaku.toml" >"$ROOT/log" 2>&1 &
               echo $! >"$ROOT/pid"
               for _ in $(seq 600); do grep -q "is running" "$ROOT/log" && exit 0; sleep 0.1; done
               exit 1 ;;
             "reload hikyaku") exec hikyaku reload ;;
             *) echo "what is systemctl $*?" >&2; exit 1 ;;
           esac"#,
    ),
];

/// One machine: a folder that stands for `/`, and a project folder to work in.
struct Machine {
    root: TempDir,
}

impl Machine {
    /// `edits` is what a person changes in the configuration, as a script of sed.
    fn new(edits: &str) -> Self {
        let machine = Self { root: tempfile::tempdir().expect("a folder") };
        let project = Path::new(env!("CARGO_MANIFEST_DIR"));
        let link = |from: PathBuf, to: &str| {
            let to = machine.path(to);
            fs::create_dir_all(to.parent().expect("a folder")).expect("a folder");
            std::os::unix::fs::symlink(from, to).expect("a link");
        };
        link(project.join("conf"), "work/conf");
        link(project.join("systemd"), "work/systemd");
        link(env!("CARGO_BIN_EXE_hikyaku").into(), "work/target/release/hikyaku");
        for (name, script) in STAND_INS {
            let path = machine.path(&format!("bin/{name}"));
            fs::create_dir_all(machine.path("bin")).expect("a folder");
            fs::write(&path, format!("#!/bin/bash\n{script}\n")).expect("a script");
            fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).expect("a script");
        }
        let data = machine.path("var/lib/hikyaku");
        let ops = ports::free();
        let all = format!(
            "s|^#data = .*|data = \"{}\"|\ns|^#listen = \"127.0.0.1:9480\"|listen = \
             \"127.0.0.1:{ops}\"|\ns|^\\[spool\\]|&\\ncapacity = \"4 GiB\"|\n{edits}",
            data.display()
        );
        fs::write(machine.path("edits"), all).expect("a script");
        machine
    }

    fn path(&self, below: &str) -> PathBuf {
        self.root.path().join(below)
    }

    fn try_run(&self, script: &str, words: &[(&str, &str)]) -> Output {
        let mut script = script.to_owned();
        for folder in ["etc", "usr"] {
            script = script.replace(&format!(" /{folder}/"), &format!(" \"$ROOT\"/{folder}/"));
        }
        for (from, to) in words {
            script = script.replace(from, to);
        }
        let path = std::env::var("PATH").unwrap_or_default();
        let mut bash = Command::new("bash");
        bash.args(["-euxo", "pipefail", "-c", &script]).current_dir(self.path("work"));
        bash.env("ROOT", self.root.path()).env("PROGRAM", env!("CARGO_BIN_EXE_hikyaku"));
        bash.env("PATH", format!("{}:{path}", self.path("bin").display()));
        run(&mut bash)
    }

    /// Runs a block of a guide; `words` are what a reader replaces in it.
    fn run(&self, script: &str, words: &[(&str, &str)]) -> String {
        let output = self.try_run(script, words);
        let (out, err) = (text(&output.stdout), text(&output.stderr));
        let log = fs::read_to_string(self.path("log")).unwrap_or_default();
        assert!(output.status.success(), "{}\n{out}\n{err}\n{log}", output.status);
        out
    }

    /// Gives files of this machine to another, from hand to hand.
    fn give(&self, other: &Self, names: &[&str]) {
        for name in names {
            fs::copy(self.path("work/pki").join(name), other.path("work").join(name))
                .unwrap_or_else(|e| panic!("{name}: {e}"));
        }
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        let pid = fs::read_to_string(self.path("pid")).ok().and_then(|p| p.trim().parse().ok());
        if let Some(pid) = pid {
            let _ = kill(Pid::from_raw(pid), Signal::SIGKILL);
        }
    }
}

/// The commands below a heading, one text for each block of this language.
fn blocks_of(guide: &str, heading: &str, language: &str) -> Vec<String> {
    let start = guide.find(&format!("## {heading}")).unwrap_or_else(|| panic!("no {heading}"));
    let section = &guide[start + 3..];
    let section = section.split("\n## ").next().expect("a section");
    let (mut blocks, mut open) = (Vec::new(), None::<String>);
    for line in section.lines() {
        match (line.trim(), &mut open) {
            ("```", Some(_)) => blocks.extend(open.take()),
            (_, Some(block)) => *block += &format!("{line}\n"),
            (fence, None) if fence == format!("```{language}") => open = Some(String::new()),
            _ => {}
        }
    }
    assert!(!blocks.is_empty(), "{heading} has commands");
    blocks
}

fn blocks(guide: &str, heading: &str) -> Vec<String> {
    blocks_of(guide, heading, "sh")
}

#[test]
fn the_guides_lead_from_two_bare_machines_to_an_image_in_the_pacs() {
    let site = Site::new();
    let pacs = Storescp::start(&site, &[]);
    let (tunnel, dicom) = (ports::free(), ports::free());
    let reading = Machine::new(&format!(
        "s|0.0.0.0:4433|127.0.0.1:{tunnel}|\ns|10.2.0.5:104|127.0.0.1:{}|\n",
        pacs.port()
    ));
    let hospital = Machine::new(&format!(
        "s|0.0.0.0:11112|127.0.0.1:{dicom}|\ns|10.1.0.0/16|127.0.0.1|\n\
         s|reading.example.jp:4433|localhost:{tunnel}|\n"
    ));
    for block in ["1. The authority and the certificates", "2. Install"] {
        blocks(READING, block).iter().for_each(|b| drop(reading.run(b, &[])));
    }

    reading.give(&hospital, &["ca.crt", "st-elsewhere.crt", "st-elsewhere.key"]);
    for block in ["1. Install", "2. Configure", "3. Start"] {
        blocks(HOSPITAL, block).iter().for_each(|b| drop(hospital.run(b, &[])));
    }
    assert!(!hospital.path("work/st-elsewhere.key").exists(), "the key is shredded");
    until("the tunnel stands", || {
        let status = hospital.run("sudo hikyaku status --json", &[]);
        status.contains("\"up\": true")
    });

    let image = files(&data("study"))[0].display().to_string();
    let node = format!("127.0.0.1 {dicom}");
    let words = [("NODE 11112", node.as_str()), ("image.dcm", &image), ("1.2.840.…", STUDY)];
    for block in blocks(HOSPITAL, "5. Check") {
        hospital.run(&block, &words);
    }
    until("the image is in the PACS", || pacs.files().len() == 1);
    for block in blocks(READING, "4. The first hospital") {
        reading.run(&block, &words);
    }
    until("the hospital knows it", || {
        let study = format!("sudo hikyaku study {STUDY}");
        hospital.run(&study, &[]).contains("beyond: receipted at reading-pacs")
    });

    blocks(READING, "Every year").iter().for_each(|b| drop(reading.run(b, &[])));
    reading.give(&hospital, &["st-elsewhere.crt"]);
    blocks(HOSPITAL, "Later").iter().for_each(|b| drop(hospital.run(b, &[])));

    let recipe = &blocks_of(READING, "A stolen key", "ini")[0];
    fs::write(reading.path("work/pki/crl.cnf"), recipe).expect("a recipe");
    let revoke = &blocks(READING, "A stolen key")[0];
    reading.run(revoke, &[("openssl ca", "openssl ca -batch")]);
    assert!(reading.path("work/pki/ca.crl").exists());
}

#[test]
fn prometheus_understands_the_alert_rules() {
    let rules = Path::new(env!("CARGO_MANIFEST_DIR")).join("conf/alerts.yml");
    let found = run(Command::new("sh").args(["-c", "command -v promtool"]));
    if !found.status.success() {
        eprintln!("skipped: needs promtool");
        return;
    }
    let checked = run(Command::new("promtool").args(["check", "rules"]).arg(rules));
    assert!(checked.status.success(), "{}{}", text(&checked.stdout), text(&checked.stderr));
}
