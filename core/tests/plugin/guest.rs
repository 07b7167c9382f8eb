//! Test guests: components built from a few lines of WebAssembly text against the real contract.

use std::collections::BTreeMap;

use wit_component::{ComponentEncoder, StringEncoding, embed_component_metadata};
use wit_parser::Resolve;

pub(crate) const CONTRACT: &str = include_str!("../../../wit/plugin.wit");

/// Where every function leaves its result.
const RESULT: u32 = 1024;
/// Texts that bodies may point at, 256 bytes apart.
const TEXTS: u32 = 4096;

/// Bodies are WebAssembly text that leaves one i32: the address of the result.
pub(crate) struct Guest {
    pub(crate) contract: String,
    pub(crate) world: &'static str,
    /// More imports, as WebAssembly text.
    pub(crate) imports: &'static str,
    pub(crate) texts: Vec<String>,
    pub(crate) describe: String,
    pub(crate) open: String,
    pub(crate) check: String,
    pub(crate) poll: String,
    pub(crate) deliver: String,
    /// Functions of the optional interfaces: `streams#endpoints` and its body.
    pub(crate) optional: BTreeMap<&'static str, String>,
}

/// Parameters of the optional functions, as the canonical ABI flattens them.
const OPTIONAL: [(&str, &str); 6] = [
    ("streams#endpoints", ""),
    (
        "streams#on-frames",
        "(param $endpoint i32) (param $endpoint_len i32) (param $frames i32) (param $frames_len i32)",
    ),
    (
        "control#cancel",
        "(param $id i32) (param $id_len i32) (param i32 i32 i32)",
    ),
    (
        "control#retry",
        "(param $key i32) (param $key_len i32) (param $id i32) (param $id_len i32) (param i32 i32 i32)",
    ),
    (
        "control#submit",
        "(param $key i32) (param $key_len i32) (param $type i32) (param $type_len i32)
         (param $body i32) (param $body_len i32)",
    ),
    (
        "logs#read",
        "(param $id i32) (param $id_len i32) (param i32 i32 i32) (param $direction i32)
         (param $some i32) (param $cursor i32) (param $len i32)",
    ),
];

impl Guest {
    pub(crate) fn source() -> Guest {
        Guest {
            contract: CONTRACT.into(),
            world: "job-source",
            imports: "",
            texts: vec!["test-guest".into(), "1.2.3".into(), "fine".into()],
            describe: store(&[(0, text(0)), (4, 10), (8, text(1)), (12, 5), (16, 0)]),
            open: store(&[(0, 0)]),
            check: store(&[(0, 0), (4, text(2)), (8, 4)]),
            poll: page("(i32.const 0)"),
            deliver: String::new(),
            optional: BTreeMap::new(),
        }
    }

    /// A source with every optional interface: each function answers with what it was given, as far as it can.
    pub(crate) fn full() -> Guest {
        let mut guest = Guest {
            world: "full-job-source",
            ..Guest::source()
        };
        let (url, url_len) = guest.text("ws://127.0.0.1:8188/ws");
        let (id, id_len) = guest.text("main");
        // An endpoint has 60 bytes; everything that is not written stays 0: a websocket without headers or hello.
        let endpoints = format!(
            "{} {}",
            words(
                3072,
                &[(0, id), (4, id_len), (12, url), (16, url_len), (56, 1)]
            ),
            store(&[(0, 0), (4, 3072), (8, 1)])
        );
        // The endpoint's name comes back as an observation and as a text to send.
        let frames = format!(
            "{} (i32.store (i32.const 3080) (local.get $endpoint))
             (i32.store (i32.const 3084) (local.get $endpoint_len))
             (i32.store (i32.const 3332) (local.get $endpoint))
             (i32.store (i32.const 3336) (local.get $endpoint_len))
             {}",
            words(3072, &[(0, 2), (16, 0), (256, 0)]),
            store(&[(0, 0), (4, 3072), (8, 1), (12, 1), (16, 3328), (20, 1)])
        );
        let retry = submission(
            "id",
            ("(i32.const 0)", "(i32.const 0)"),
            ("$key", "$key_len"),
        );
        let submit = submission(
            "key",
            ("(local.get $type)", "(local.get $type_len)"),
            ("$body", "$body_len"),
        );
        // One line of 32 bytes without a time: written by the job's id, and the text says where the cursor is.
        let read = format!(
            "(i32.store (i32.const 3072) (i32.const 0))
             (i32.store (i32.const 3088) (local.get $id)) (i32.store (i32.const 3092) (local.get $id_len))
             (i32.store (i32.const 3096) (local.get $cursor)) (i32.store (i32.const 3100) (local.get $len))
             (i32.store (i32.const {}) (local.get $some)) (i32.store (i32.const {}) (local.get $cursor))
             (i32.store (i32.const {}) (local.get $len)) (i32.store (i32.const {}) (local.get $direction))
             {}",
            RESULT + 12,
            RESULT + 16,
            RESULT + 20,
            RESULT + 24,
            store(&[(0, 0), (4, 3072), (8, 1)])
        );
        guest.optional = BTreeMap::from([
            ("streams#endpoints", endpoints),
            ("streams#on-frames", frames),
            ("control#cancel", store(&[(0, 0)])),
            ("control#retry", retry),
            ("control#submit", submit),
            ("logs#read", read),
        ]);
        guest
    }

    pub(crate) fn handler() -> Guest {
        Guest {
            world: "alert-handler",
            // Gives `prior` back as the receipt: both are an option<string> of three words, 88 bytes into the parameters.
            deliver: store(&[(0, 0), (4, 0)]),
            ..Guest::source()
        }
    }

    /// Adds a text and returns its place and length.
    pub(crate) fn text(&mut self, content: &str) -> (u32, u32) {
        assert!(content.len() <= 256);
        self.texts.push(content.into());
        (text(self.texts.len() - 1), content.len() as u32)
    }

    /// `poll` fetches `url` by `http.send` and returns the body as its cursor, or the failure as it is.
    pub(crate) fn fetching(url: &str, credential: Option<&str>) -> Guest {
        let mut guest = Guest::source();
        let (method, _) = guest.text("GET");
        let (url, url_len) = guest.text(url);
        let (is_signed, (name, name_len)) = match credential {
            Some(name) => (1, guest.text(name)),
            None => (0, (0, 0)),
        };
        guest.poll = format!(
            "(call $send (i32.const {method}) (i32.const 3) (i32.const {url}) (i32.const {url_len})
               (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0) (i32.const 0)
               (i32.const {is_signed}) (i32.const {name}) (i32.const {name_len})
               (i32.const 0) (i32.const 0) (i32.const 2048))
             (if (i32.load8_u (i32.const 2048)) (then (return (i32.const 2048))))
             (i32.store (i32.const {}) (i32.load (i32.const 2064)))
             (i32.store (i32.const {}) (i32.load (i32.const 2068)))
             {}",
            RESULT + 16,
            RESULT + 20,
            store(&[(0, 0), (4, 0), (8, 0), (12, 1), (24, 2)]),
        );
        guest
    }

    /// `poll` tells all that it can of what `url` answered: it logs it, fails with it, then shows it as a job and as its
    /// cursor, then crashes over it.
    pub(crate) fn telltale(url: &str, credential: &str) -> Guest {
        let mut guest = Guest::fetching(url, Some(credential));
        let (id, id_len) = guest.text("job-1");
        let (detail, detail_len) = guest.text("{}");
        let store_page = guest.poll.find("(i32.store (i32.const 10").unwrap();
        let fetch = &guest.poll[..store_page];
        // One running job; its name and its error are what came back.
        let job = words(
            3072,
            &[
                (8, id),
                (12, id_len),
                (40, 3),
                (44, 1),
                (120, 1),
                (140, detail),
                (144, detail_len),
            ],
        );
        let came = |at: u32| {
            format!(
                "(i32.store (i32.const {at}) (i32.load (i32.const 2064)))
                 (i32.store (i32.const {}) (i32.load (i32.const 2068)))",
                at + 4
            )
        };
        guest.poll = format!(
            "{fetch}
             (call $log (i32.const 3) (i32.load (i32.const 2064)) (i32.load (i32.const 2068)))
             (call $log (i32.const 0) (i32.load (i32.const 2064)) (i32.load (i32.const 2068)))
             (global.set $calls (i32.add (global.get $calls) (i32.const 1)))
             (if (i32.eq (global.get $calls) (i32.const 1)) (then
                {} {} (return (i32.const {RESULT}))))
             (if (i32.gt_u (global.get $calls) (i32.const 2)) (then (unreachable)))
             {job} {} {} {} {}",
            words(RESULT, &[(0, 1), (12, 0), (16, 0)]),
            came(RESULT + 4),
            came(3072 + 48),
            came(3072 + 124),
            came(RESULT + 16),
            store(&[(0, 0), (4, 3072), (8, 1), (12, 1), (24, 2)])
        );
        guest
    }

    /// The first poll of an instance is fine, the second runs `body`.
    pub(crate) fn second_poll(body: &str) -> Guest {
        Guest {
            poll: format!(
                "(global.set $calls (i32.add (global.get $calls) (i32.const 1)))
                 (if (i32.gt_u (global.get $calls) (i32.const 1)) (then {body}))
                 {}",
                page("(i32.const 0)")
            ),
            ..Guest::source()
        }
    }

    pub(crate) fn core_module(&self) -> Vec<u8> {
        let version = self
            .contract
            .split_once("package weir:plugin@")
            .and_then(|(_, rest)| rest.split_once(';'))
            .unwrap()
            .0;
        let data: String = (0..)
            .zip(&self.texts)
            .map(|(n, content)| format!("(data (i32.const {}) {content:?})\n", text(n)))
            .collect();
        let call = if self.world == "alert-handler" {
            format!(
                "(func (export \"weir:plugin/alerts@{version}#deliver\") (param $in i32) (result i32) {})",
                self.deliver
            )
        } else {
            format!(
                "(func (export \"weir:plugin/jobs@{version}#poll\")
                   (param $some i32) (param $cursor i32) (param $len i32) (param i32 i32) (result i32) {})",
                self.poll
            )
        };
        let optional: String = self
            .optional
            .iter()
            .map(|(name, body)| {
                let params = OPTIONAL.iter().find(|(known, _)| known == name).unwrap().1;
                let (interface, function) = name.split_once('#').unwrap();
                format!(
                    "(func (export \"weir:plugin/{interface}@{version}#{function}\") {params} (result i32) {body})\n"
                )
            })
            .collect();
        let wat = format!(
            "(module
              (import \"weir:plugin/http@{version}\" \"send\" (func $send
                (param i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32 i32)))
              (import \"weir:plugin/host@{version}\" \"log\" (func $log (param i32 i32 i32)))
              {}
              (memory (export \"memory\") 2)
              (global $heap (mut i32) (i32.const 65536))
              (global $calls (mut i32) (i32.const 0))
              {data}
              {REALLOC}
              (func (export \"weir:plugin/lifecycle@{version}#describe\") (result i32) {})
              (func (export \"weir:plugin/lifecycle@{version}#open\") (param i32 i32 i32 i32 i32 i32) (result i32) {})
              (func (export \"weir:plugin/lifecycle@{version}#check\") (result i32) {})
              {call}
              {optional})",
            self.imports, self.describe, self.open, self.check,
        );
        wat::parse_str(&wat).unwrap_or_else(|error| panic!("{error}\n{wat}"))
    }

    /// What a compiler gives: a core module with its world in a custom section.
    pub(crate) fn embedded(&self) -> Vec<u8> {
        let mut module = self.core_module();
        let mut resolve = Resolve::default();
        let package = resolve.push_str("plugin.wit", &self.contract).unwrap();
        let world = resolve.select_world(&[package], Some(self.world)).unwrap();
        embed_component_metadata(&mut module, &resolve, world, StringEncoding::UTF8, false)
            .unwrap();
        module
    }

    pub(crate) fn component(&self) -> Vec<u8> {
        let mut encoder = ComponentEncoder::default();
        encoder.module(&self.embedded()).unwrap();
        encoder.encode().unwrap()
    }
}

/// A submission of 200 for the job named by the parameter `$id`: what its content type and its body are taken from.
fn submission(id: &str, content_type: (&str, &str), body: (&str, &str)) -> String {
    format!(
        "(i32.store (i32.const {}) (local.get ${id})) (i32.store (i32.const {}) (local.get ${id}_len))
         (i32.store (i32.const {}) {}) (i32.store (i32.const {}) {})
         (i32.store (i32.const {}) (local.get {})) (i32.store (i32.const {}) (local.get {}))
         {}",
        RESULT + 8,
        RESULT + 12,
        RESULT + 32,
        content_type.0,
        RESULT + 36,
        content_type.1,
        RESULT + 40,
        body.0,
        RESULT + 44,
        body.1,
        store(&[(0, 0), (4, 1), (16, 0), (28, 200)])
    )
}

/// A bump allocator that grows its memory and never frees.
const REALLOC: &str = "
  (func (export \"cabi_realloc\") (param i32 i32 i32) (param $size i32) (result i32) (local $at i32)
    (local.set $at (i32.and (i32.add (global.get $heap) (i32.const 7)) (i32.const -8)))
    (global.set $heap (i32.add (local.get $at) (local.get $size)))
    (if (i32.gt_u (global.get $heap) (i32.mul (memory.size) (i32.const 65536)))
      (then (drop (memory.grow (i32.add (i32.const 1) (i32.div_u (local.get $size) (i32.const 65536)))))))
    (local.get $at))";

fn text(n: usize) -> u32 {
    TEXTS + 256 * n as u32
}

/// Writes words at offsets from the result's address, and leaves that address.
pub(crate) fn store(words: &[(u32, u32)]) -> String {
    let stores: String = words
        .iter()
        .map(|(offset, word)| {
            format!(
                "(i32.store (i32.const {}) (i32.const {word}))\n",
                RESULT + offset
            )
        })
        .collect();
    format!("{stores} (i32.const {RESULT})")
}

/// Writes words at offsets from an address.
pub(crate) fn words(at: u32, words: &[(u32, u32)]) -> String {
    let store = |(offset, word): &(u32, u32)| {
        format!("(i32.store (i32.const {}) (i32.const {word}))", at + offset)
    };
    words.iter().map(store).collect()
}

/// An empty page that gives the cursor back, of this coverage (0 more, 1 partial, 2 complete).
pub(crate) fn page(coverage: &str) -> String {
    format!(
        "(i32.store (i32.const {}) (local.get $some))
         (i32.store (i32.const {}) (local.get $cursor))
         (i32.store (i32.const {}) (local.get $len))
         (i32.store (i32.const {}) {coverage})
         {}",
        RESULT + 12,
        RESULT + 16,
        RESULT + 20,
        RESULT + 24,
        store(&[(0, 0), (4, 0), (8, 0)])
    )
}

/// A failure of this kind (0 transient, 1 permanent, 2 misconfigured).
pub(crate) fn failure(kind: u32, (at, len): (u32, u32)) -> String {
    store(&[(0, 1), (4, at), (8, len), (12, 1 | (kind << 8)), (16, 0)])
}

pub(crate) const SPIN: &str = "(loop $spin (br $spin)) (unreachable)";
pub(crate) const BOMB: &str =
    "(loop $grow (drop (memory.grow (i32.const 16))) (br $grow)) (unreachable)";
