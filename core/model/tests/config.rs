//! The configuration as people write it: folders of good and bad files, and the one we ship.

use std::path::{Path, PathBuf};

use proptest::prelude::*;
use weir_model::config::{self, Config, Diagnostic, ParseContext};

const CONTEXT: ParseContext<'_> = ParseContext {
    known_plugins: &[
        "apprise",
        "comfyui",
        "discord",
        "ntfy",
        "pagerduty",
        "slack",
        "telegram",
        "vertex-ai",
        "webhook",
    ],
    known_timezones: &["UTC", "Europe/Paris", "Europe/Prague", "America/New_York"],
};

fn parse(text: &str) -> Result<(Config, Vec<Diagnostic>), Vec<Diagnostic>> {
    config::parse(text, &CONTEXT)
}

fn rendered(diagnostics: &[Diagnostic]) -> String {
    diagnostics
        .iter()
        .map(|diagnostic| diagnostic.render("monitor.ron") + "\n")
        .collect()
}

/// What must be read without a mistake.
fn believed(text: &str) -> (Config, Vec<Diagnostic>) {
    parse(text).unwrap_or_else(|diagnostics| panic!("{}", rendered(&diagnostics)))
}

fn root() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../..")
}

/// Every file of a folder, by name.
fn files(folder: &str) -> Vec<(String, String)> {
    let folder = root().join("tests/data/config").join(folder);
    let mut files: Vec<_> = std::fs::read_dir(folder)
        .expect("the folder is there")
        .map(|entry| entry.expect("the folder can be listed").path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "ron"))
        .map(|path| {
            let name = path
                .file_stem()
                .expect("a file has a name")
                .to_string_lossy()
                .into_owned();
            (
                name,
                std::fs::read_to_string(path).expect("the file is text"),
            )
        })
        .collect();
    files.sort();
    files
}

fn shipped() -> String {
    std::fs::read_to_string(root().join("monitor.ron")).expect("monitor.ron is shipped")
}

fn snapshot_settings() -> insta::Settings {
    let mut settings = insta::Settings::clone_current();
    settings.set_snapshot_path("config_snapshots");
    settings.set_prepend_module_to_snapshot(false);
    settings.set_omit_expression(true);
    settings
}

#[test]
fn every_invalid_file_is_refused_with_every_mistake_in_it() {
    let files = files("invalid");
    assert!(files.len() >= 25);
    for (name, text) in files {
        let diagnostics = parse(&text).map(|_| ()).expect_err(&name);
        let told = rendered(&diagnostics);
        assert!(
            !told.contains("hunter2"),
            "{name} repeats a secret:\n{told}"
        );
        let mut settings = snapshot_settings();
        settings.set_description(text);
        settings.bind(|| insta::assert_snapshot!(format!("invalid_{name}"), told));
    }
}

#[test]
fn every_valid_file_is_believed() {
    let files = files("valid");
    assert!(files.len() >= 6);
    for (name, text) in files {
        let (_, warnings) = believed(&text);
        snapshot_settings()
            .bind(|| insta::assert_snapshot!(format!("valid_{name}"), rendered(&warnings)));
    }
}

#[test]
fn monitor_ron_works_as_shipped_without_a_warning() {
    let (config, warnings) = believed(&shipped());
    assert_eq!(rendered(&warnings), "");
    assert_eq!(config.sources.len(), 1);
    assert_eq!(config.sources[0].name, "studio");
    let origins = config.sources[0].entry.origin_allow_list();
    assert_eq!(
        origins.iter().map(ToString::to_string).collect::<Vec<_>>(),
        ["http://127.0.0.1:8188"]
    );
    assert!(config.alerts.receivers.is_empty());
}

#[test]
fn monitor_ron_works_with_every_example_uncommented() {
    let text = shipped();
    assert!(
        text.lines()
            .filter(|line| line.trim_start().starts_with("//~ "))
            .count()
            > 20
    );
    let (config, warnings) = believed(&text.replace("//~ ", "    "));
    assert_eq!(rendered(&warnings), "");
    assert_eq!(config.sources.len(), 4);
    assert_eq!(config.alerts.receivers.len(), 4);
    assert!(config.alerts.deadman.is_some());
}

#[test]
fn what_monitor_ron_shows_as_defaults_are_the_defaults() {
    let (mut config, _) = believed(&shipped());
    config.sources.clear();
    config.alerts.rules.clear();
    assert_eq!(config, Config::default());
}

#[test]
fn what_is_shown_is_effective_and_read_again_means_the_same() {
    for (name, text) in files("valid")
        .into_iter()
        .chain([("monitor".to_owned(), shipped())])
    {
        let (config, _) = believed(&text);
        let ron = config.to_ron_redacted();
        let (again, _) = believed(&ron);
        assert_eq!(
            again.to_json_redacted(),
            config.to_json_redacted(),
            "{name}:\n{ron}"
        );
        assert_eq!(again.to_ron_redacted(), ron);
    }
}

#[test]
fn the_shown_forms_of_the_reference_file() {
    let (config, _) = believed(&shipped().replace("//~ ", "    "));
    let json = serde_json::to_string_pretty(&config.to_json_redacted()).unwrap();
    snapshot_settings().bind(|| {
        insta::assert_snapshot!("shown_ron", config.to_ron_redacted());
        insta::assert_snapshot!("shown_json", json);
    });
}

#[test]
fn nothing_secret_is_shown() {
    let (config, _) = believed(
        r#"(
            sources: [(name: "a", plugin: "comfyui", config: {
                "url": "https://a.example/path?key=hunter2#hunter2", "api-key": "hunter2",
                "deep": [{ "password": "hunter2", "urls": ["http://b.example/?t=hunter2"] }],
            })],
            health: [(name: "app", url: "https://a.example/health?key=hunter2")],
            alerts: (deadman: (url: "https://hc-ping.com/hunter2")),
        )"#,
    );
    for shown in [
        config.to_ron_redacted(),
        config.to_json_redacted().to_string(),
    ] {
        assert!(!shown.contains("hunter2"), "{shown}");
        assert!(shown.contains("https://a.example/path?***"), "{shown}");
    }
}

#[test]
fn paths_start_at_the_folder_of_the_file_and_at_the_home() {
    let (mut config, _) = believed(
        r#"(data_dir: "~/weir", sources: [
            (name: "a", plugin: "plugins/a.wasm", allow: [], credentials: {
                "k": Bearer(file: "~/k", origins: ["https://a.example"]),
                "l": Bearer(file: "/l", origins: ["https://a.example"]),
            }),
            (name: "b", plugin: "~/b.wasm", allow: []),
        ], alerts: (route: (receiver: "m"), receivers: [(name: "m", handler: "email",
            config: { "server": "localhost", "from": "m@localhost", "to": ["m@localhost"], "ca_file": "ca.pem" },
            credentials: { "smtp": Basic(user: "m", file: "~/m") },
        )]))"#,
    );
    config.resolve(Path::new("/etc/weir"), Path::new("/home/me"));
    let shown = format!("{config:?}");
    for path in [
        "/home/me/weir",
        "/etc/weir/plugins/a.wasm",
        "/home/me/k",
        "\"/l\"",
        "/home/me/b.wasm",
        "/etc/weir/ca.pem",
        "/home/me/m\"",
    ] {
        assert!(shown.contains(path), "{path} in {shown}");
    }
}

#[test]
fn a_file_without_end_or_without_bottom_is_refused() {
    let too_large = " ".repeat(config::TEXT_LEN_MAX + 1);
    let too_deep = format!("({}", "a: (".repeat(5000));
    let many_mistakes = format!("({})", "a: 1, ".repeat(2000));
    for text in [too_large, too_deep, many_mistakes] {
        let diagnostics = parse(&text).unwrap_err();
        assert!((1..=101).contains(&diagnostics.len()));
        assert!(rendered(&diagnostics).len() < 20_000);
    }
}

/// Pieces that make text look like a configuration, so that random text gets past the parser.
fn fragment() -> impl Strategy<Value = String> {
    let pieces = [
        "(",
        ")",
        "[",
        "]",
        "{",
        "}",
        ",",
        ":",
        "\"",
        "'",
        "\\",
        "//",
        "/*",
        "*/",
        "r#\"",
        "\"#",
        "r#",
        "0x",
        "b'",
        "None",
        "Some(",
        "name:",
        "plugin:",
        "\"comfyui\"",
        "sources:",
        "config:",
        "alerts:",
        "rules:",
        "route:",
        "matchers:",
        "when:",
        "credentials:",
        "Bearer(",
        "env:",
        "\"a=~b\"",
        "\"2s\"",
        "1e999",
        "-0x",
        "1_",
        "\u{feff}",
        "é",
        "🌊",
        "\n",
        "\0",
    ];
    prop_oneof![4 => prop::sample::select(pieces.to_vec()).prop_map(str::to_owned), 1 => ".{0,6}"]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(1024))]

    #[test]
    fn arbitrary_text_is_answered_and_never_a_panic(text in ".{0,200}") {
        drop(parse(&text));
    }

    #[test]
    fn text_of_familiar_pieces_is_answered_and_never_a_panic(pieces in prop::collection::vec(fragment(), 0..40)) {
        drop(parse(&pieces.concat()));
    }

    #[test]
    fn a_damaged_reference_file_is_answered_and_never_a_panic(
        at in 0.0..1.0,
        len in 0usize..30,
        piece in fragment(),
    ) {
        let mut text = include_str!("../../../monitor.ron").replace("//~ ", "    ");
        let start = text.floor_char_boundary((at * text.len() as f64) as usize);
        let end = text.floor_char_boundary(start + len);
        text.replace_range(start..end, &piece);
        if let Err(diagnostics) = parse(&text) {
            let lines = text.lines().count() + 1;
            prop_assert!(!diagnostics.is_empty());
            for it in diagnostics {
                prop_assert!((1..=lines).contains(&it.line) && it.column >= 1, "{}", it);
            }
        }
    }
}
