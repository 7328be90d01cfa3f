//! The rules of the house, held by a test: who may import whom, how long files and functions are,
//! where clocks are read, and which words are no names.

use std::collections::BTreeSet;
use std::fmt::Write as _;
use std::fs;
use std::path::{Path, PathBuf};

/// Modules by rank; a module imports only from ranks below its own.
const RANKS: [&[&str]; 6] = [
    &["calls", "cargo", "clock", "dicom", "hl7", "metrics"],
    &["routing", "custody", "inquiry"],
    &["intake", "tunnel", "delivery", "orders", "reports"],
    &["ops"],
    &["config", "node"],
    &["cli", "main"],
];
/// Imports within a rank that `src/lib.rs` allows.
const SIBLINGS: [(&str, &str); 3] = [("cargo", "clock"), ("reports", "orders"), ("node", "config")];
/// Lines of a file, blank ones and tests included.
const FILE_LINES_MAX: usize = 600;
/// Lines of a function.
const FUNCTION_LINES_MAX: usize = 100;
/// Takes quinn's instants as arguments, as its interface has them.
const GIVEN_TIME: &str = "tunnel/congestion.rs";
/// Functions that are tables, one entry below the other.
const TABLES: [(&str, &str); 1] = [("metrics.rs", "new")];
/// Names that say nothing.
const NO_NAMES: [&str; 6] = ["util", "utils", "common", "manager", "helper", "helpers"];
/// The only file that may look at a clock.
const CLOCK: &str = "clock.rs";

struct Source {
    /// Below `src`.
    path: String,
    module: String,
    lines: Vec<String>,
}

fn sources() -> Vec<Source> {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut folders = vec![root.clone()];
    let mut found = Vec::new();
    while let Some(folder) = folders.pop() {
        for entry in fs::read_dir(folder).expect("a folder of sources") {
            let path: PathBuf = entry.expect("an entry").path();
            if path.is_dir() {
                folders.push(path);
            } else if path.extension().is_some_and(|e| e == "rs") {
                let text = fs::read_to_string(&path).expect("a source file");
                let path = path.strip_prefix(&root).expect("below src").display().to_string();
                let module = path.split(['/', '.']).next().expect("a name").to_owned();
                let lines = text.lines().map(str::to_owned).collect();
                found.push(Source { path, module, lines });
            }
        }
    }
    found.sort_by(|a, b| a.path.cmp(&b.path));
    assert!(found.len() > 20, "the sources are found");
    found
}

fn rank(module: &str) -> Option<usize> {
    RANKS.iter().position(|modules| modules.contains(&module))
}

/// Lines of code: no comments, and nothing below the first `mod tests`.
fn code(source: &Source) -> impl Iterator<Item = (usize, &str)> {
    let whole = source.path.ends_with("tests.rs");
    let lines = source.lines.iter().enumerate().map(|(n, line)| (n + 1, line.trim()));
    lines
        .take_while(move |(_, line)| !whole && !line.starts_with("mod tests {"))
        .filter(|(_, line)| !line.starts_with("//"))
}

fn hold(faults: &str) {
    assert!(faults.is_empty(), "the rules of the house:\n{faults}");
}

#[test]
fn a_module_imports_only_from_ranks_below_its_own() {
    let mut faults = String::new();
    for source in sources().iter().filter(|s| s.module != "lib") {
        let own = rank(&source.module);
        assert!(own.is_some(), "{} has no rank: give it one here and in src/lib.rs", source.path);
        for (line, text) in code(source) {
            for module in imports(text) {
                let sibling = SIBLINGS.contains(&(&source.module, &module));
                if module != source.module && rank(&module) >= own && !sibling {
                    let _ = writeln!(faults, "{}:{line}: imports {module}", source.path);
                }
            }
        }
    }
    hold(&faults);
}

/// Top-level modules that a line names: `crate::a::b`, `crate::{a, b}`.
fn imports(line: &str) -> BTreeSet<String> {
    let mut found = BTreeSet::new();
    for part in line.split("crate::").skip(1) {
        let word = |s: &str| -> String {
            s.trim().chars().take_while(|c| c.is_alphanumeric() || *c == '_').collect()
        };
        match part.strip_prefix('{') {
            Some(list) => {
                let mut depth = 0;
                let mut start = 0;
                for (at, c) in list.char_indices() {
                    match c {
                        '{' => depth += 1,
                        '}' if depth > 0 => depth -= 1,
                        ',' | '}' if depth == 0 => {
                            found.insert(word(&list[start..at]));
                            start = at + 1;
                        }
                        _ => {}
                    }
                }
            }
            None => {
                found.insert(word(part));
            }
        }
    }
    found.retain(|module| rank(module).is_some());
    found
}

#[test]
fn files_fit_a_reader_and_functions_nearly_a_screen() {
    let mut faults = String::new();
    for source in sources() {
        if source.lines.len() > FILE_LINES_MAX {
            let _ = writeln!(faults, "{}: {} lines", source.path, source.lines.len());
        }
        for (name, line, length) in functions(&source) {
            let table = TABLES.contains(&(&source.path, &name));
            if length > FUNCTION_LINES_MAX && !table {
                let _ = writeln!(faults, "{}:{line}: fn {name}: {length} lines", source.path);
            }
        }
    }
    hold(&faults);
}

/// Name, first line and length of each function, as rustfmt lays them out.
fn functions(source: &Source) -> Vec<(String, usize, usize)> {
    let mut found = Vec::new();
    let mut open: Vec<(String, usize, usize)> = Vec::new();
    for (n, line) in source.lines.iter().enumerate() {
        let indent = line.len() - line.trim_start().len();
        let words: Vec<&str> = line.split_whitespace().collect();
        let head = words.iter().take_while(|w| !w.contains('(')).any(|w| *w == "fn");
        let name = words.iter().skip_while(|w| **w != "fn").nth(1);
        let starts = head || words.first() == Some(&"fn");
        if let (true, Some(name)) = (starts && !line.trim_start().starts_with("//"), name) {
            let name = name.split(['(', '<']).next().expect("a name").to_owned();
            if !line.ends_with('}') && !line.ends_with(';') {
                open.push((name, n + 1, indent));
            }
        } else if line.trim() == "}" && open.last().is_some_and(|(_, _, i)| *i == indent) {
            let (name, start, _) = open.pop().expect("an open function");
            found.push((name, start, n + 2 - start));
        }
    }
    found
}

#[test]
fn modules_have_names_that_say_something() {
    let mut faults = String::new();
    for source in sources() {
        for part in source.path.trim_end_matches(".rs").split('/') {
            if NO_NAMES.contains(&part) {
                let _ = writeln!(faults, "{}: {part} is no name", source.path);
            }
        }
    }
    hold(&faults);
}

#[test]
fn only_the_clock_reads_clocks() {
    let mut faults = String::new();
    for source in sources().iter().filter(|s| ![CLOCK, GIVEN_TIME].contains(&s.path.as_str())) {
        for (line, text) in code(source) {
            // Drivers set timers by tokio's own `Instant`, which decides nothing.
            let clocks = ["SystemTime", "std::time::Instant", "Timestamp::now(", "Zoned::now("];
            let std = text.starts_with("use std::time::") && text.contains("Instant");
            if std || clocks.iter().any(|clock| text.contains(clock)) {
                let _ = writeln!(faults, "{}:{line}: {text}", source.path);
            }
        }
    }
    hold(&faults);
}

#[test]
fn every_module_opens_with_what_it_is() {
    let mut faults = String::new();
    for source in sources().iter().filter(|s| !s.path.ends_with("tests.rs")) {
        if !source.lines.first().is_some_and(|line| line.starts_with("//! ")) {
            let _ = writeln!(faults, "{}: begins without //!", source.path);
        }
    }
    hold(&faults);
}

#[test]
fn every_page_is_named_in_the_readme_and_every_link_leads_to_a_file() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR"));
    let mut pages = vec![root.join("README.md"), root.join("CHANGELOG.md")];
    for folder in ["docs", "docs/ja", "docs/decisions"] {
        let entries = fs::read_dir(root.join(folder)).expect("a folder of pages");
        pages.extend(entries.map(|entry| entry.expect("an entry").path()));
    }
    pages.retain(|page| page.extension().is_some_and(|e| e == "md"));
    let mut faults = String::new();
    let mut named = BTreeSet::new();
    for page in &pages {
        let text = fs::read_to_string(page).expect("a page");
        let folder = page.parent().expect("a folder");
        // A link names a page of ours or an address; what else stands in brackets is no link.
        for link in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            let path = link.split('#').next().unwrap_or_default();
            let is_file = path.ends_with(".md") || path.ends_with(".toml");
            if !is_file || path.contains("://") {
                continue;
            }
            match fs::canonicalize(folder.join(path)) {
                Ok(found) if page.ends_with("README.md") => drop(named.insert(found)),
                Ok(_) => {}
                Err(_) => drop(writeln!(faults, "{}: {link} leads nowhere", page.display())),
            }
        }
    }
    for page in pages.iter().skip(2).filter(|page| !page.ends_with("README.md")) {
        let page = fs::canonicalize(page).expect("a page");
        if !named.contains(&page) {
            let _ = writeln!(faults, "{}: no README names it", page.display());
        }
    }
    hold(&faults);
}

#[test]
fn the_rules_see_what_breaks_them() {
    assert_eq!(imports("use crate::{custody::{Kept, Custody}, intake};").len(), 2);
    assert_eq!(imports("let x = crate::node::Node::start();").first().unwrap(), "node");
    let long = "fn f() {".to_owned();
    let mut lines = vec![long];
    lines.extend(vec!["    x();".to_owned(); 120]);
    lines.push("}".into());
    let source = Source { path: "a.rs".into(), module: "a".into(), lines };
    assert_eq!(functions(&source), [("f".into(), 1, 122)]);
}
