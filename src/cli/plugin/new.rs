//! `weir plugin new`: a plugin to begin with, in one of four languages, without any network.

use super::super::Context;
use super::super::exit::{CliError, Exit};
use std::path::PathBuf;

#[derive(Clone, Debug, clap::Args)]
pub(super) struct Args {
    /// Name of the plugin and of the folder that is made: lower-case letters, digits and dashes
    name: String,
    #[arg(long, value_enum)]
    lang: Lang,
    #[arg(long, value_enum, default_value_t = Kind::Handler)]
    kind: Kind,
    /// Where to make it [default: ./NAME]
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Lang {
    Rust,
    Python,
    Js,
    C,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(super) enum Kind {
    /// Delivers alerts
    Handler,
    /// Watches jobs
    Source,
}

/// A file of the new plugin: its path, and its content.
type File = (&'static str, &'static [u8]);

macro_rules! template {
    ($path:literal) => {
        include_bytes!(concat!("templates/", $path))
    };
}
macro_rules! example {
    ($path:literal) => {
        include_bytes!(concat!("../../../examples/plugins/", $path))
    };
}
macro_rules! sdk {
    ($path:literal) => {
        (
            concat!("sdk/", $path),
            include_bytes!(concat!("../../../plugins/sdk/", $path)),
        )
    };
}

const CONTRACT: File = ("wit/plugin.wit", include_bytes!("../../../wit/plugin.wit"));
const GUESTS: &[u8] = include_bytes!("../../../plugins/Cargo.toml");
/// The SDK as it is, but for its way to the contract.
const SDK: &[File] = &[
    sdk!("Cargo.toml"),
    sdk!("build.rs"),
    sdk!("src/config.rs"),
    sdk!("src/contract.rs"),
    sdk!("src/failure.rs"),
    sdk!("src/lenient.rs"),
    sdk!("src/lib.rs"),
    sdk!("src/plugin.rs"),
    sdk!("src/request.rs"),
    sdk!("src/text.rs"),
];

pub(super) fn run(ctx: &mut Context, args: &Args) -> Result<Exit, CliError> {
    if !is_name(&args.name) {
        return Err(CliError::usage(format!(
            "`{}` is no name for a plugin: lower-case letters, digits and dashes, beginning with a letter",
            args.name.escape_debug()
        )));
    }
    let dir = args
        .dir
        .clone()
        .unwrap_or_else(|| PathBuf::from(&args.name));
    let failed = |error: std::io::Error| CliError::failed(format!("{}: {error}", dir.display()));
    if dir.read_dir().is_ok_and(|mut found| found.next().is_some()) {
        return Err(CliError::usage(format!(
            "{} is there already and not empty",
            dir.display()
        )));
    }
    for (path, content) in files(&args.name, args.lang, args.kind) {
        let path = dir.join(path);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(failed)?;
        }
        std::fs::write(&path, content).map_err(failed)?;
    }
    let (dir, name) = (dir.display(), &args.name);
    ctx.printer.line(format_args!("made {dir}. Next:"))?;
    ctx.printer.line(format_args!("  sh {dir}/build.sh"))?;
    ctx.printer
        .line(format_args!("  weir plugin check {dir}/{name}.wasm"))?;
    Ok(Exit::Ok)
}

fn is_name(name: &str) -> bool {
    name.len() <= 64
        && name.starts_with(|c: char| c.is_ascii_lowercase())
        && name
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'-')
}

/// Every file of the new plugin.
pub(super) fn files(name: &str, lang: Lang, kind: Kind) -> Vec<(String, Vec<u8>)> {
    let handler = kind == Kind::Handler;
    let pick = |yes: &'static [u8], no: &'static [u8]| if handler { yes } else { no };
    let mut raw: Vec<File> = vec![CONTRACT];
    let (source, code, build): (&str, &[u8], &[u8]) = match lang {
        Lang::Python => {
            raw.push(("weir_plugin.py", example!("python/weir_plugin.py")));
            let code = pick(
                template!("python/handler.py"),
                template!("python/source.py"),
            );
            ("plugin.py", code, template!("python/build.sh"))
        }
        Lang::Js => {
            raw.push(("weir_plugin.js", example!("js/weir_plugin.js")));
            let code = pick(template!("js/handler.js"), template!("js/source.js"));
            ("plugin.js", code, template!("js/build.sh"))
        }
        Lang::C => {
            raw.extend(c_files(handler));
            let code = pick(template!("c/handler.c"), template!("c/source.c"));
            ("plugin.c", code, template!("c/build.sh"))
        }
        Lang::Rust => {
            let code = pick(template!("rust/handler.rs"), template!("rust/source.rs"));
            ("src/lib.rs", code, template!("rust/build.sh"))
        }
    };
    let ignored: &[u8] = b"/.tools\n/target\n*.wasm\n__pycache__\n";
    let mut made: Vec<(String, Vec<u8>)> = raw
        .into_iter()
        .chain([(".gitignore", ignored)])
        .map(|(path, content)| (path.to_owned(), content.to_vec()))
        .collect();
    if lang == Lang::Rust {
        made.extend(SDK.iter().map(|(path, content)| sdk_file(path, content)));
        made.push(("Cargo.toml".to_owned(), cargo_toml(name)));
    }
    let filled = |text: &[u8]| fill(text, name, lang, kind, source);
    made.push((source.to_owned(), filled(code)));
    made.push(("build.sh".to_owned(), filled(build)));
    made.push(("README.md".to_owned(), filled(template!("README.md"))));
    made
}

fn c_files(handler: bool) -> Vec<File> {
    let mut files: Vec<File> = vec![
        ("runtime/plugin.c", example!("c/runtime/plugin.c")),
        ("runtime/plugin.h", example!("c/runtime/plugin.h")),
        (
            "runtime/include/stdlib.h",
            example!("c/runtime/include/stdlib.h"),
        ),
        (
            "runtime/include/string.h",
            example!("c/runtime/include/string.h"),
        ),
    ];
    if handler {
        files.extend::<[File; 3]>([
            (
                "bindings/weir.c",
                example!("c/bindings/alert-handler/weir.c"),
            ),
            (
                "bindings/weir.h",
                example!("c/bindings/alert-handler/weir.h"),
            ),
            (
                "bindings/weir_component_type.o",
                example!("c/bindings/alert-handler/weir_component_type.o"),
            ),
        ]);
    } else {
        files.extend::<[File; 3]>([
            ("bindings/weir.c", example!("c/bindings/job-source/weir.c")),
            ("bindings/weir.h", example!("c/bindings/job-source/weir.h")),
            (
                "bindings/weir_component_type.o",
                example!("c/bindings/job-source/weir_component_type.o"),
            ),
        ]);
    }
    files
}

/// In weir's repository the contract lies two folders above the SDK, beside a new plugin one.
fn sdk_file(path: &str, content: &[u8]) -> (String, Vec<u8>) {
    let text = String::from_utf8_lossy(content).replace("../../wit", "../wit");
    (path.to_owned(), text.into_bytes())
}

/// The manifest, with the versions of the dependencies that weir's own guests use.
fn cargo_toml(name: &str) -> Vec<u8> {
    let manifest =
        String::from_utf8_lossy(template!("rust/Cargo.toml.in")).replace("{{name}}", name);
    let guests = String::from_utf8_lossy(GUESTS);
    let dependencies = guests
        .split_once("[workspace.dependencies]\n")
        .and_then(|(_, rest)| rest.split("\n[").next())
        .unwrap_or_default();
    let wanted = dependencies
        .lines()
        .filter(|line| !line.starts_with("weir-") && !line.starts_with("jiff"));
    let wanted: Vec<&str> = wanted.filter(|line| !line.is_empty()).collect();
    format!("{manifest}{}\n", wanted.join("\n")).into_bytes()
}

fn fill(text: &[u8], name: &str, lang: Lang, kind: Kind, source: &str) -> Vec<u8> {
    let handler = kind == Kind::Handler;
    let entry = if handler {
        format!(
            "receivers: [ (name: \"{name}\", handler: \"./{name}/{name}.wasm\", config: {{ \"url\": \"http://127.0.0.1:9100/\" }}) ],"
        )
    } else {
        format!(
            "sources: [ (name: \"{name}\", plugin: \"./{name}/{name}.wasm\", config: {{ \"url\": \"http://127.0.0.1:9100/\" }}) ],"
        )
    };
    let world = if handler {
        "alert-handler"
    } else {
        "job-source"
    };
    let text = String::from_utf8_lossy(text)
        .replace("{{name}}", name)
        .replace("{{world}}", world)
        .replace("{{source}}", source)
        .replace("{{entry}}", &entry)
        .replace(
            "{{define}}",
            if handler { "-DWEIR_ALERT_HANDLER" } else { "" },
        )
        .replace(
            "{{kind}}",
            if handler {
                "alert handler"
            } else {
                "job source"
            },
        )
        .replace(
            "{{lang}}",
            match lang {
                Lang::Rust => "Rust",
                Lang::Python => "Python",
                Lang::Js => "JavaScript",
                Lang::C => "C",
            },
        );
    text.into_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_template_is_filled() {
        for lang in [Lang::Rust, Lang::Python, Lang::Js, Lang::C] {
            for kind in [Kind::Handler, Kind::Source] {
                let files = files("my-plugin", lang, kind);
                for (path, content) in &files {
                    let text = String::from_utf8_lossy(content);
                    assert!(!text.contains("{{name") && !text.contains("{{w"), "{path}");
                }
                let named = |path: &str| files.iter().any(|(found, _)| found == path);
                assert!(named("wit/plugin.wit") && named("build.sh") && named("README.md"));
            }
        }
    }

    #[test]
    fn a_new_plugin_in_rust_has_the_whole_sdk_and_its_dependencies() {
        let src = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("plugins/sdk/src");
        for entry in std::fs::read_dir(src).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = format!("sdk/src/{name}");
            assert!(SDK.iter().any(|(found, _)| *found == path), "{path}");
        }
        let manifest = String::from_utf8(cargo_toml("x")).unwrap();
        for dependency in [
            "serde",
            "serde_json",
            "serde_path_to_error",
            "wit-bindgen",
            "wit-component",
        ] {
            assert!(
                manifest.contains(&format!("\n{dependency} = ")),
                "{manifest}"
            );
        }
    }

    #[test]
    fn a_name_is_a_folder_and_nothing_else() {
        for (name, good) in [
            ("a", true),
            ("my-plugin2", true),
            ("", false),
            ("../x", false),
            ("A", false),
            ("2a", false),
            ("a_b", false),
        ] {
            assert_eq!(is_name(name), good, "{name}");
        }
    }
}
