//! Describes each world of the contract as the bytes that a component's section holds.
//!
//! `wit_bindgen::generate!` does this too, but only in the crate that it is called in, and for one world.

use std::path::Path;
use std::{env, fs};

use wit_component::{StringEncoding, metadata};
use wit_parser::Resolve;

fn main() -> Result<(), Box<dyn std::error::Error>> {
    let contract = Path::new(&env::var("CARGO_MANIFEST_DIR")?).join("../../wit");
    println!("cargo::rerun-if-changed={}", contract.display());
    let mut resolve = Resolve::default();
    let (package, _) = resolve.push_path(&contract)?;
    for name in ["alert-handler", "job-source"] {
        let world = resolve.select_world(&[package], Some(name))?;
        let described = metadata::encode(&resolve, world, StringEncoding::UTF8, None, false)?;
        fs::write(Path::new(&env::var("OUT_DIR")?).join(name), described)?;
    }
    Ok(())
}
