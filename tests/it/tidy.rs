//! The house rules that no compiler checks.

use std::path::{Path, PathBuf};

/// Longer than 700 lines, and why.
const LONG: &[(&str, &str)] = &[
    (
        "core/src/monitor/runtime.rs",
        "everything is built, reloaded and torn down in one place and one order",
    ),
    ("core/src/exposition.rs", "one line per family of metrics"),
    ("core/src/plugin/egress/tests.rs", "tests of one thing"),
    ("core/model/src/alert/router/tests.rs", "tests of one thing"),
    ("core/tests/plugin/main.rs", "tests of one thing"),
    ("tests/it/api.rs", "tests of one thing"),
];
const LINES_MAX: usize = 700;

fn root() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR"))
}

/// Files of ours below a folder; what is built and what is hidden is not ours.
fn files(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        let name = path.file_name().unwrap().to_string_lossy().into_owned();
        if name.starts_with('.') || name == "target" {
            continue;
        }
        if path.is_dir() {
            files(&path, found);
        } else {
            found.push(path);
        }
    }
}

fn all_files() -> Vec<PathBuf> {
    let mut found = Vec::new();
    files(&root(), &mut found);
    assert!(found.len() > 200, "only {} files were found", found.len());
    found
}

fn short(path: &Path) -> String {
    path.strip_prefix(root()).unwrap().display().to_string()
}

fn rust_files() -> Vec<(String, String)> {
    let rust = all_files()
        .into_iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"));
    rust.map(|path| (short(&path), std::fs::read_to_string(&path).unwrap()))
        .collect()
}

fn check(wrong: &[String]) {
    assert!(wrong.is_empty(), "{}", wrong.join("\n"));
}

#[test]
fn every_file_begins_with_what_it_owns() {
    let silent = |(_, text): &(String, String)| !text.starts_with("//! ");
    let wrong: Vec<String> = rust_files()
        .into_iter()
        .filter(silent)
        .map(|(path, _)| path)
        .collect();
    check(&wrong);
}

#[test]
fn no_file_is_too_long_to_read() {
    let mut wrong = Vec::new();
    for (path, text) in rust_files() {
        let lines = text.lines().count();
        if lines > LINES_MAX && !LONG.iter().any(|(long, _)| *long == path) {
            wrong.push(format!("{path} has {lines} lines"));
        }
    }
    check(&wrong);
}

#[test]
fn modules_are_named_after_their_files() {
    let wrong: Vec<String> = rust_files()
        .into_iter()
        .map(|(path, _)| path)
        .filter(|path| path.ends_with("/mod.rs"))
        .collect();
    check(&wrong);
}

#[test]
fn nothing_points_out_of_the_repository() {
    // In two halves, or this file would hold it.
    let needle = ["..", "shared"].join("/");
    let mut wrong = Vec::new();
    for path in all_files() {
        let bytes = std::fs::read(&path).unwrap();
        if String::from_utf8_lossy(&bytes).contains(&needle) {
            wrong.push(short(&path));
        }
    }
    check(&wrong);
}

#[test]
fn the_model_knows_no_runtime() {
    let manifest = std::fs::read_to_string(root().join("core/model/Cargo.toml")).unwrap();
    for heavy in ["tokio", "actix", "wasmtime", "rusqlite"] {
        assert!(!manifest.contains(heavy), "weir-model depends on {heavy}");
    }
}

#[test]
fn every_example_is_named_in_a_test() {
    let mut tests = Vec::new();
    files(&root().join("tests"), &mut tests);
    files(&root().join("core/tests"), &mut tests);
    let rust = tests
        .iter()
        .filter(|path| path.extension().is_some_and(|e| e == "rs"));
    let told: String = rust
        .map(|path| std::fs::read_to_string(path).unwrap())
        .collect();
    let mut examples = Vec::new();
    files(&root().join("examples"), &mut examples);
    let unnamed = |path: &PathBuf| !told.contains(&*path.file_name().unwrap().to_string_lossy());
    let wrong: Vec<String> = examples
        .into_iter()
        .filter(unnamed)
        .map(|path| short(&path))
        .collect();
    check(&wrong);
}

/// The names in the tables of dependencies of a manifest, as code writes them.
fn dependencies(manifest: &str) -> Vec<String> {
    let mut named = Vec::new();
    let mut within = false;
    for line in manifest.lines() {
        if let Some(table) = line.strip_prefix('[') {
            within = table.ends_with("dependencies]") && !table.starts_with("workspace.");
        } else if within && let Some((name, _)) = line.split_once(['.', ' ', '=']) {
            named.push(name.replace('-', "_"));
        }
    }
    named.retain(|name| !name.is_empty() && !name.starts_with('#'));
    named
}

#[test]
fn every_dependency_is_used() {
    let mut wrong = Vec::new();
    for manifest in all_files()
        .into_iter()
        .filter(|path| path.ends_with("Cargo.toml"))
    {
        let folder = manifest.parent().unwrap();
        let mut own = Vec::new();
        files(folder, &mut own);
        // What stands below another manifest is another package.
        let nested: Vec<PathBuf> = own
            .iter()
            .filter(|path| path.ends_with("Cargo.toml") && **path != manifest)
            .map(|path| path.parent().unwrap().to_path_buf())
            .collect();
        let code: String = own
            .iter()
            .filter(|path| path.extension().is_some_and(|e| e == "rs"))
            .filter(|path| !nested.iter().any(|folder| path.starts_with(folder)))
            .map(|path| std::fs::read_to_string(path).unwrap())
            .collect();
        let named = dependencies(&std::fs::read_to_string(&manifest).unwrap());
        let unused = |name: &String| !code.contains(&format!("{name}::"));
        for name in named.into_iter().filter(unused) {
            wrong.push(format!("{} names {name}", short(&manifest)));
        }
    }
    check(&wrong);
}
